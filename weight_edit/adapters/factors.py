"""LoRA factors of an edit plan, one pair per changed parameter.

Writers have `B = -L`, `A = R^T W`, readers the reverse; a constant in an embedding's rows takes one more rank, and
biases change beside the factors. A stack of experts has a pair for each expert, and a stack of their biases is a matrix
of its own.

An unembedding that is tied to the embedding never gets factors: merging adds those of both modules to the one tensor,
which makes a reflection of an ablation. It is stored whole, or goes with the embedding when that is merged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weight_edit.adapters.parameters import Parameters
from weight_edit.adapters.truncation import Truncation, factors_of_reader, factors_of_rows, total
from weight_edit.anatomy.parts import Anatomy, Writer
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.plan.plan import EditPlan
from weight_edit.utils.progress import bar


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """The LoRA factors of one parameter: of a linear map, whose output gains `x A^T B^T` and a bias, or of a stack.

    Attributes:
        module: the module that has the parameter.
        parameter: its name, such as `model.layers.0.self_attn.o_proj.weight`.
        a: (k, in) float32; b: (out, k) float32; of a stack (experts, k, in) and (experts, out, k).
        bias: what is added to its outputs besides, (out,) float32; None for nothing.
        stored: the module's own bias, (out,) float32; None where it has none.
        embedding: whether it looks up rows.
        transposed: whether the parameter has its inputs on the first axis (the first but one of a stack).
        loss: what a smaller rank than the edit's loses; None for nothing.
    """

    module: str
    parameter: str
    a: Tensor
    b: Tensor
    bias: Tensor | None = None
    stored: Tensor | None = None
    embedding: bool = False
    transposed: bool = False
    loss: Truncation | None = None

    @property
    def rank(self) -> int:
        """The rank k, of each matrix; 0 where only the bias changes."""
        return self.a.shape[-2]

    @property
    def stacked(self) -> bool:
        """Whether the parameter is a stack of matrices."""
        return self.a.ndim == 3

    @property
    def of_module(self) -> bool:
        """Whether the parameter is the weight of its module, as that of a linear map is."""
        return self.parameter == f"{self.module}.weight" and not self.stacked


def own_unembedding(plan: EditPlan, parameters: Parameters) -> dict[str, Tensor]:
    """The parameters of a tied unembedding that must be stored whole, by name; else empty.

    Factors of the embedding would be merged into it, and its own into the embedding.

    Returns:
        its weight (vocabulary, d_model), as the embedding is stored, or edited, in float32; and its bias as it is.
    """
    anatomy, edit = plan.anatomy, readers_of(plan).get(plan.anatomy.unembedding_weight)
    if not plan.unties or (edit is None and anatomy.embedding_weight not in plan.tensors()):
        return {}
    weight = parameters.whole(anatomy.embedding_weight)
    others = [name for name in anatomy.shapes if name.startswith(f"{anatomy.unembedding}.")]
    found = {name: parameters.whole(name) for name in others if name != anatomy.unembedding_weight}
    return {anatomy.unembedding_weight: weight if edit is None else edit(weight.float()), **found}


def readers_of(plan: EditPlan) -> dict[str, TensorEdit]:
    """The low-rank edits of the reading weights, which leave the norms' gains unchanged."""
    return {name: edit for turn in plan.reflections for name, edit in (turn.low_rank or {}).items()}


def factors_of(plan: EditPlan, parameters: Parameters, rank: int | None = None) -> list[Factors]:
    """The factors of every parameter that changes.

    Args:
        plan: one that `limits.check_plan` lets pass.
        rank: at most; None for exact factors.
    """
    changes, anatomy = plan.tensors(), plan.anatomy
    created = {name.removesuffix(".bias"): torch.from_numpy(vector).float() for name, vector in plan.created.items()}
    wanted = [w for w in anatomy.writers if w.weight in changes or w.bias in changes or w.module in created]
    # A tied unembedding is stored whole, see `own_unembedding`.
    tied = anatomy.unembedding_weight if anatomy.tied else None
    readers = {name: edit for name, edit in readers_of(plan).items() if name != tied}
    found: list[Factors] = []
    with bar("adapter", len(wanted) + len(readers)) as progress:
        for writer in wanted:
            if _stacked(anatomy, writer.weight):
                found += _stack(writer, changes, anatomy, parameters, rank)
            else:
                found.append(_writing(writer, changes, parameters, rank, created.get(writer.module)))
            progress.advance()
        for name, edit in readers.items():
            found.append(_reading(name, edit, parameters, anatomy, rank))
            progress.advance()
    return found


def _stacked(anatomy: Anatomy, parameter: str) -> bool:
    return len(anatomy.shapes.get(parameter, ())) == 3


def _writing(
    writer: Writer,
    changes: Mapping[str, TensorEdit],
    parameters: Parameters,
    rank: int | None,
    created: Tensor | None,
) -> Factors:
    """The factors of a writer, whose output is mapped."""
    embedding = writer.role in ("embedding", "position")
    transposed = writer.axis == 1
    made = _of_writer(writer.weight, writer.axis, changes, parameters, rank)
    made = replace(made, module=writer.module, embedding=embedding, transposed=transposed and not embedding)
    if created is not None:
        made = replace(made, bias=created)
    if writer.bias is None or writer.bias not in changes:
        return made
    stored = parameters.whole(writer.bias).float()
    change = changes[writer.bias](stored) - stored
    return replace(made, stored=stored, bias=change if made.bias is None else made.bias + change)


def _of_writer(
    name: str, axis: int, changes: Mapping[str, TensorEdit], parameters: Parameters, rank: int | None
) -> Factors:
    """The factors of a matrix whose vectors lie along an axis; of rank 0 where it does not change."""
    matrix = parameters.whole(name)
    rows = matrix.movedim(axis, -1)
    loss = None
    if name in changes:
        b, a, loss = factors_of_rows(changes[name], rows, rank)
    else:
        a, b = torch.zeros(0, len(rows)), torch.zeros(rows.shape[1], 0)
    return Factors(module="", parameter=name, a=a, b=b, loss=loss)


def _stack(
    writer: Writer, changes: Mapping[str, TensorEdit], anatomy: Anatomy, parameters: Parameters, rank: int | None
) -> Iterator[Factors]:
    """The factors of a stack of experts, and of the stack of their biases, which is a matrix."""
    module = writer.weight.rpartition(".")[0]
    if writer.weight in changes:
        pairs = []
        for matrix in parameters.matrices(writer.weight, 3):
            pairs.append(factors_of_rows(changes[writer.weight], matrix.movedim(writer.axis - 1, -1), rank))
        losses = [loss for _, _, loss in pairs if loss is not None]
        yield Factors(
            module=module,
            parameter=writer.weight,
            a=torch.stack([others for _, others, _ in pairs]),
            b=torch.stack([stream for stream, _, _ in pairs]),
            transposed=writer.axis == 2,
            loss=total(losses) if losses else None,
        )
    if writer.bias is not None and writer.bias in changes:
        made = _of_writer(writer.bias, writer.bias_axis, changes, parameters, rank)
        yield replace(made, module=module, transposed=writer.bias_axis == 1)


def _reading(name: str, edit: TensorEdit, parameters: Parameters, anatomy: Anatomy, rank: int | None) -> Factors:
    """The factors of a reader, whose input is mapped: each row w becomes `w - (w^T L) R^T`."""
    shape = anatomy.shapes[name]
    # The axis of the stream in each matrix.
    axis = edit.axis - len(shape) + 2
    pairs: list[tuple[Tensor, Tensor]] = []
    losses: list[Truncation] = []
    for matrix in parameters.matrices(name, len(shape)):
        out_in = (matrix if axis == 1 else matrix.T).float()
        a, b, loss = factors_of_reader(edit, out_in, rank)
        losses += [] if loss is None else [loss]
        pairs.append((a, b))
    stacked = len(shape) == 3
    return Factors(
        module=name.rpartition(".")[0],
        parameter=name,
        a=torch.stack([a for a, _ in pairs]) if stacked else pairs[0][0],
        b=torch.stack([b for _, b in pairs]) if stacked else pairs[0][1],
        transposed=axis == 0,
        loss=total(losses) if losses else None,
    )
