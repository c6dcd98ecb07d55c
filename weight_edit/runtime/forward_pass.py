"""One forward pass: the backbone alone, or a few positions' logits, with nothing computed that is not read."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from weight_edit.runtime.batching import Batch
from weight_edit.runtime.hooks import PASS
from weight_edit.runtime.loading import Model
from weight_edit.runtime.prefix import cache_argument
from weight_edit.utils.threads import one_thread


def forward_backbone(model: Model, batch: Batch) -> Tensor:
    """What the model's head reads: its hidden states behind the last norm, (rows, tokens, d_model).

    Args:
        batch: on the model's device.
    """
    backbone = model.backbone
    hidden: Tensor = backbone(**_inputs(backbone, batch))[0]
    return hidden


def last_logits(model: Model, batch: Batch, count: int) -> Tensor:
    """The logits of the last `count` columns of a left-padded batch: (rows, count, vocabulary).

    Gradients flow where the caller has them enabled.
    """
    inputs = _inputs(model.model, batch)
    if "logits_to_keep" in inspect.signature(model.model.forward).parameters:
        inputs["logits_to_keep"] = count
    logits: Tensor = model.model(**inputs).logits
    return logits[:, -count:]


def as_pass(batch: Batch, step: Callable[[Batch], Any]) -> Any:
    """What a step makes of a batch; hooks that it attaches act in this pass alone."""
    token = PASS.set(batch)
    try:
        return step(batch)
    finally:
        PASS.reset(token)


def suited_threads(model: Model) -> AbstractContextManager[None]:
    """A context with as many threads as make the model's passes fast."""
    return one_thread() if model.small else nullcontext()


def _inputs(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """The arguments of `module.forward`; positions and cache only if the family takes them."""
    taken = inspect.signature(module.forward).parameters
    optional = {"position_ids": batch.position_ids, "use_cache": batch.cache is not None}
    name = cache_argument(module)
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        **({} if batch.cache is None or name is None else {name: batch.cache}),
        **{name: value for name, value in optional.items() if name in taken},
    }


@contextmanager
def each_block(model: Model, passed: Callable[[], None]) -> Iterator[None]:
    """Within the context, `passed` is called whenever a block of the model begins."""
    places = [model.model.get_submodule(block.module) for block in model.anatomy.blocks]
    handles = [place.register_forward_pre_hook(lambda *_: passed()) for place in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
