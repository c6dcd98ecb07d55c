"""An edit as hooks on a model in memory: of a plan, of trial steps, or of a bare ablation.

`plan_hooks` is what baked weights must agree with. `trial_hooks` also takes edits that cannot be baked, and
`published_hooks` gives an edit as papers have it, from which weights may differ.

Linear parts act on the outputs of writers; constants are added, and reflections made, where they belong in the stream:
at the inputs of blocks. So the hooks know nothing of biases, gains in front of readers and the like, and agreeing with
them proves something.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weight_edit.edits.changes import Addition, BasisChange, RuntimeOnly, StreamMap
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.plan.plan import EditPlan, check_layers, plan_ablation, plan_edit
from weight_edit.plan.step import EditStep
from weight_edit.plan.writer_edits import ParameterReader, WriterEdit
from weight_edit.runtime.hooks import Hook, adding, addition_hook
from weight_edit.runtime.loading import Model
from weight_edit.utils.arrays import Floats


def ablation_hooks(model: Model, rows: Tensor) -> list[Hook]:
    """Hooks that remove the span of rows (k, d_model) from all writers, as baked weights do."""
    # "untie": the edit is one of the stream; what it does to a tied unembedding is for `bake` to decide.
    plan = plan_ablation(model.anatomy, orthonormal_rows(rows), model.parameter, embeddings="untie")
    return plan_hooks(plan, model.parameter)


def hooks_of(model: Model) -> Callable[[Tensor], list[Hook]]:
    """A function from rows to `ablation_hooks` on one model."""
    return lambda rows: ablation_hooks(model, rows)


def trial_hooks(model: Model, steps: Sequence[EditStep], *, embeddings: str = "both") -> list[Hook]:
    """The hooks of an edit's steps, one after the other; also of steps that cannot be baked.

    Maps of the whole stream act on the outputs of its writers, as baked weights do; whatever is made at a layer acts on
    that block's input, as papers have it.

    Args:
        embeddings: see `plan_edit`; "untie" leaves an unembedding as it is that is tied to the embedding.

    Raises:
        UsageError, UnsupportedError: as `plan_edit`, but for what only hooks can do.
    """
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
            hooks.append(Hook(anatomy.blocks[change.layer].module, "input", change.map))
        elif isinstance(change, RuntimeOnly):
            check_layers((change.layer,), anatomy)
            fn = _rectified(change) if change.rectified else change.map
            hooks.append(Hook(anatomy.blocks[change.layer].module, "input", fn))
        else:
            plan = plan_edit(anatomy, [step], model.parameter, embeddings=embeddings)
            hooks += plan_hooks(plan, model.parameter)
    return hooks


def _rectified(change: RuntimeOnly) -> Callable[[Tensor], Tensor]:
    """The hook function that applies the map to positive components only."""

    def fn(x: Tensor) -> Tensor:
        left, right, _ = change.map.factors(x.device, torch.float32)
        return (x.float() - (x.float() @ right).clamp(min=0) @ left.T).to(x.dtype)

    return fn


def plan_hooks(plan: EditPlan, read: ParameterReader[Tensor], *, tied: bool = True) -> list[Hook]:
    """The hooks of a plan.

    Args:
        read: gives a parameter of the unedited model by name, a torch tensor.
        tied: let the unembedding go through the embedding's edit where the two are one tensor and stay so.
    """
    embedding = plan.tied_edit if tied else None
    hooks: list[Hook] = []
    modules: set[str] = set()
    for edit in plan.edits:
        if not edit.changes_weight:
            continue
        if edit is embedding:
            hooks += _tied(plan, edit)
        elif edit.keep_norms or not edit.writer.module:
            hooks += _on_parameters(edit)
        elif edit.writer.module not in modules and edit.map.rank:
            # Parameters of one module, such as experts of two kinds, are hooked once, at its output.
            modules.add(edit.writer.module)
            hooks.append(Hook(edit.writer.module, "output", edit.map.linear))
    for edit in plan.edits:
        norm = edit.writer.norm
        if norm is not None and norm.bias is not None and norm.bias in plan.norm_biases:
            # On the CPU, because some accelerators have no float64.
            bias = read(norm.bias).detach().cpu()
            hooks.append(Hook(norm.module, "output", adding(plan.norm_biases[norm.bias].linear.on_bias(bias) - bias)))
    for layer, vector in plan.added.items():
        hooks.append(Hook(plan.anatomy.blocks[layer].module, "input", adding(torch.from_numpy(vector))))
    for each in plan.reflections:
        hooks.append(Hook(plan.anatomy.blocks[each.layer].module, "input", each.map))
    return hooks


def published_hooks(plan: EditPlan) -> list[Hook] | None:
    """The edit as papers state it: a map on every block's input and on every writer's output.

    Where it is no projection, or norms stand behind writers, weights cannot do just that: how far they are from it is
    what `verify` measures.

    Returns:
        None where the edit is no single map of the stream, or a writer has no module that could be hooked.
    """
    if len(plan.steps) != 1 or not isinstance(change := plan.steps[0].change, StreamMap):
        return None
    step = plan.steps[0]
    edited = [edit.writer for edit in plan.edits if edit.writer.layer is not None and edit.changes_weight]
    hooks = []
    for block in plan.anatomy.blocks:
        kernel = 1.0 if step.kernel is None else step.kernel.at("mlp", block.layer, plan.anatomy.n_layers)
        if (step.layers is None or block.layer in step.layers) and kernel:
            stream_map = change.map if block.layer >= change.enters else change.map.linear
            hooks.append(Hook(block.module, "input", stream_map.times(step.strength * kernel)))
    places: dict[str, LowRankMap] = {}
    for writer in edited:
        behind = writer.norm is not None and writer.norm.module
        kernel = 1.0 if step.kernel is None else step.kernel.at(writer.role, writer.layer, plan.anatomy.n_layers)
        places[behind or writer.module] = change.map.linear.times(step.strength * kernel)
    if "" in places:
        return None
    return hooks + [Hook(place, "output", stream_map) for place, stream_map in places.items()]


def _tied(plan: EditPlan, edit: WriterEdit) -> list[Hook]:
    """Hooks for an embedding that is also the unembedding."""
    if edit.keep_norms:
        return [Hook(edit.writer.weight, "parameter", edit.of_weight)]
    hooks = []
    head = plan.anatomy.unembedding
    if edit.map.constant is not None:
        # What every row of the unembedding gets moves all logits of a token by the same number.
        shift = _Shift(edit.map.constant)
        hooks += [Hook(head, "input", shift.see), Hook(head, "output", shift.add)]
    if edit.map.rank:
        hooks += [
            Hook(edit.writer.module, "output", edit.map.linear),
            Hook(head, "input", edit.map.transposed()),
        ]
    return hooks


class _Shift:
    """Adds the product of a layer's input with a constant to its output, by a hook on each.

    A module's input hook runs before its output hook in every forward pass, so that `add` finds what `see` has left.
    """

    def __init__(self, constant: Floats) -> None:
        self._constant = constant
        self._product: Tensor | None = None

    def see(self, x: Tensor) -> Tensor:
        self._product = x @ torch.from_numpy(self._constant).to(x.device, x.dtype)
        return x

    def add(self, logits: Tensor) -> Tensor:
        if self._product is None:
            raise RuntimeError("the output of the unembedding was hooked without its input")
        return logits + self._product[..., None]


def _on_parameters(edit: WriterEdit) -> list[Hook]:
    linear = TensorEdit(edit.map.linear, edit.writer.axis, keep_norms=edit.keep_norms)
    hooks = [Hook(edit.writer.weight, "parameter", linear)]
    if edit.writer.bias is not None and edit.writer.module:
        hooks.append(Hook(edit.writer.bias, "parameter", TensorEdit(edit.map.linear, edit.writer.bias_axis)))
    return hooks
