"""An edit tried on a model in memory, as hooks: what sweeps and comparisons run, without writing any weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weight_edit.directions.scores import addition_hook
from weight_edit.edits.changes import Addition, BasisChange, RuntimeOnly
from weight_edit.plan import check_layers, lay_out
from weight_edit.runtime import Hook, Model
from weight_edit.steps import EditStep


def trial_hooks(model: Model, steps: Sequence[EditStep], *, embeddings: str = "keep") -> list[Hook]:
    """The hooks of an edit, those of its steps one after the other; also of steps that cannot be baked.

    Maps of the whole stream act on the outputs of its writers, as baked weights do; whatever is made at a layer acts on
    that block's input, as papers have it.

    Args:
        embeddings: see `lay_out`; "untie" leaves an unembedding as it is that is tied to the embedding.

    Raises:
        UsageError, UnsupportedError: as `lay_out`, but for what only hooks can do.
    """

    def read(name: str) -> Tensor:
        parameter: Tensor = model.model.get_parameter(name)
        return parameter.detach()

    anatomy = model.anatomy
    hooks: list[Hook] = []
    for step in steps:
        change = step.change
        check_layers(step.at, anatomy)
        if isinstance(change, Addition):
            check_layers(change.vectors, anatomy)
            for layer, vector in change.vectors.items():
                hooks.append(addition_hook(model, layer, torch.from_numpy(vector)))
        elif isinstance(change, BasisChange):
            hooks.append(Hook(anatomy.blocks[change.layer].module, "input", change.map.apply))
        elif isinstance(change, RuntimeOnly):
            check_layers((change.layer,), anatomy)
            fn = _rectified(change) if change.rectified else change.map.apply
            hooks.append(Hook(anatomy.blocks[change.layer].module, "input", fn))
        else:
            hooks += lay_out(anatomy, [step], read, embeddings=embeddings).hooks(read)
    return hooks


def _rectified(change: RuntimeOnly) -> Callable[[Tensor], Tensor]:
    """The map, of the positive components alone."""

    def fn(x: Tensor) -> Tensor:
        left, right, _ = change.map.factors(x.device, torch.float32)
        return (x.float() - (x.float() @ right).clamp(min=0) @ left.T).to(x.dtype)

    return fn
