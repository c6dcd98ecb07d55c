"""Whether padding changes what a model says, though it is masked.

Some convolutions read it, and keys that are compressed in spans are counted from the first column.
"""

from weakref import WeakKeyDictionary

import torch
from torch import nn

from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.errors import WeightEditError
from weight_edit.runtime.loading import Model

_TOKENS, _PADDING = 300, 17
"""Of the sequence that is tried: longer than the spans whose keys are compressed, 128 tokens."""

_ROUNDING = 1e-3
"""A difference of float32 logits, in their standard deviations."""

_FOUND: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def padding_matters(model: Model) -> bool:
    """Whether padding at the left of a prompt changes what the model answers; found on a narrow copy of it.

    True where no such copy can be made: then nobody knows.
    """
    found = _FOUND.get(model.model)
    if found is None:
        found = _FOUND[model.model] = _changes(model)
    return found


def _changes(model: Model) -> bool:
    generator = torch.Generator().manual_seed(0)
    try:
        narrow = narrow_model(model.config)
        vocabulary = len(narrow.get_input_embeddings().weight)  # type: ignore[operator]
        ids = torch.randint(vocabulary, (1, _TOKENS), generator=generator)
        with torch.no_grad():
            alone, padded = (_logits(narrow, ids, padding) for padding in (0, _PADDING))
    except (*MODEL_ERRORS, WeightEditError):
        return True
    return not bool((alone - padded).abs().max() <= _ROUNDING * alone.std())


def _logits(model: nn.Module, ids: torch.Tensor, padding: int) -> torch.Tensor:
    zeros = torch.zeros((1, padding), dtype=torch.long)
    mask = torch.cat([zeros, torch.ones_like(ids)], dim=1)
    logits: torch.Tensor = model(input_ids=torch.cat([zeros, ids], dim=1), attention_mask=mask).logits
    return logits[0, -1]
