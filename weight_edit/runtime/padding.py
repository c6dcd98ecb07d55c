"""Whether prompts of unlike length may share a batch: only where the padding beside them leaves them as they are."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import torch
from torch import Tensor

from weight_edit.runtime.batching import padded
from weight_edit.runtime.forward_pass import as_pass, forward_backbone, suited_threads
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.prefix import known_layers, unsuited

_TRIED, _PADDED = 300, 17
"""Tokens, and padding beside them, with which it is tried whether padding is hidden."""


def hides_padding(model: Model, sequences: Sequence[Sequence[int]]) -> bool:
    """Whether rows of different lengths may share a batch.

    Where only attention reads other tokens, its mask hides padding. A state that is carried on is another matter:
    whether the padding's token matters is seen by another token there, which must give the same to the bit. So it is
    with keys of spans that padding shifts: what is tried is longer than a span, 128 tokens.
    """
    by_length = sorted(sequences, key=len)
    if model.hides_padding is None and by_length and len(by_length[0]) < len(by_length[-1]):
        if unsuited(model) is None:
            model.hides_padding = True
        elif model.offload is not None or not known_layers(model):
            # From disk, batches of one length each cost no more reading.
            return False
        else:
            positions = any(embedding.role == "position" for embedding in model.anatomy.embeddings)
            long, short = (
                list(islice(cycle(some), len(some) if positions else max(len(some), least)))
                for some, least in ((by_length[-1], _TRIED + _PADDED), (by_length[0], _TRIED))
            )
            other = next(token for token in range(model.embeddings) if token != model.pad_id)
            ends = [_end_beside(model, long, short, pad) for pad in (model.pad_id, other)]
            model.hides_padding = torch.equal(*ends)
    return model.hides_padding is not False


def _end_beside(model: Model, long: Sequence[int], short: Sequence[int], pad: int) -> Tensor:
    """The stream behind the last block at the tokens of the shorter one of two sequences in a batch."""
    batch = padded([long, short], (0, 1), pad, "left").to(model.device)
    found: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        found.append(x[1, -len(short) :])
        return x

    place = Hook(model.anatomy.blocks[-1].module, "output", keep)
    with torch.no_grad(), suited_threads(model), hooked(model.model, [place]):
        as_pass(batch, partial(forward_backbone, model))
    return found[0]
