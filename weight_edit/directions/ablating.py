"""The ablation of directions from a model's whole stream, as hooks."""

from collections.abc import Callable

from torch import Tensor

from weight_edit.edits import orthonormal_rows
from weight_edit.plan import edit_plan
from weight_edit.runtime import Hook, Model


def ablation_hooks(model: Model, rows: Tensor) -> list[Hook]:
    """Hooks that remove the span of rows (k, d_model) from the whole stream, as baked weights would."""

    def read(name: str) -> Tensor:
        parameter: Tensor = model.model.get_parameter(name)
        return parameter.detach()

    # "untie": the edit is one of the stream; what it does to a tied unembedding is for `bake` to decide.
    return edit_plan(model.anatomy, orthonormal_rows(rows), read, embeddings="untie").hooks(read)


def hooks_of(model: Model) -> Callable[[Tensor], list[Hook]]:
    """`ablation_hooks` on one model."""
    return lambda rows: ablation_hooks(model, rows)
