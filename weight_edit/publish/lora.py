"""LoRA factors of an edit plan, one pair per changed module.

Writers have `B = -L`, `A = R^T W`, readers the reverse; a constant in an embedding's rows takes one more rank, and
biases change beside the factors.

An unembedding that is tied to the embedding never gets factors: merging adds those of both modules to the one tensor,
which makes a reflection of an ablation. It is stored whole, or goes with the embedding when that is merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weight_edit.anatomy.parts import Writer
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UnsupportedError
from weight_edit.plan.plan import EditPlan
from weight_edit.plan.writer_edits import ParameterReader
from weight_edit.utils.progress import bar


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """The LoRA factors of one module: its output gains `x A^T B^T` and a bias.

    Attributes:
        module: its name.
        a: (k, in) float32; b: (out, k) float32.
        bias: what is added to its outputs besides, (out,) float32; None for nothing.
        stored: the module's own bias, (out,) float32; None where it has none.
        embedding: whether it looks up rows.
        transposed: whether its weight is stored as (in, out).
    """

    module: str
    a: Tensor
    b: Tensor
    bias: Tensor | None = None
    stored: Tensor | None = None
    embedding: bool = False
    transposed: bool = False

    @property
    def rank(self) -> int:
        """The rank k; 0 where only the bias changes."""
        return len(self.a)


def check_low_rank(plan: EditPlan) -> None:
    """Refuse an edit that no LoRA can express.

    Raises:
        UnsupportedError: lengths are kept, which has full rank; a parameter that is no matrix of a linear map or an
            embedding changes; norms would have to change; or what a tied unembedding becomes would be another edit
            before merging than after it.
    """
    if any(edit.keep_norms for edit in plan.edits):
        raise UnsupportedError(
            "norm-preserving ablation rescales every column of a matrix, which is not of low rank; use bake"
        )
    if plan.norm_biases:
        raise UnsupportedError(f"'{next(iter(plan.norm_biases))}' changes too, which a LoRA cannot carry; use bake")
    changes = plan.tensors()
    for writer in plan.anatomy.writers:
        if writer.weight in changes and writer.weight != f"{writer.module}.weight":
            raise UnsupportedError(f"'{writer.weight}' is no linear map, and an adapter cannot carry it; use bake")
    weights = [writer.weight for writer in plan.anatomy.writers if writer.weight in changes]
    for turn in plan.reflections:
        if turn.low_rank is None:
            raise UnsupportedError(
                f"{plan.anatomy.architecture}: a reflection at a layer changes the norms in front of what reads "
                "(their biases, or gains of zero), which a LoRA cannot carry; use bake, or leave `at` out",
                option="at",
            )
        weights += list(turn.low_rank)
    twice = next((name for name in weights if weights.count(name) > 1), None)
    if twice is not None:
        raise UnsupportedError(f"'{twice}' both reads and writes, which an adapter cannot tell apart; use bake")
    for name in weights:
        if len(plan.anatomy.shapes.get(name, (0, 0))) != 2 or not name.endswith(".weight"):
            raise UnsupportedError(f"'{name}' is no matrix of a linear map, and an adapter cannot carry it; use bake")
    tied = plan.tied_edit
    gone = plan.complete and plan.stream is not None and plan.stream.idempotent
    if tied is not None and tied.map.rank and not gone:
        raise UnsupportedError(
            f"'{plan.anatomy.unembedding}' is tied to the embedding, so that an adapter of the embedding edits one of "
            "them before it is merged and both after, which differ where an edit leaves something along the "
            "directions; `embeddings='untie'` stores an unembedding of its own, skip leaves both; or use bake",
            option="embeddings",
        )


def merges_with_embedding(plan: EditPlan) -> bool:
    """Whether the adapter edits a tied unembedding only once it is merged."""
    return plan.tied_edit is not None and plan.tied_edit.changes_weight


def own_unembedding(plan: EditPlan, read: ParameterReader[Tensor]) -> dict[str, Tensor]:
    """The parameters of a tied unembedding that must be stored whole, by name; else empty.

    Factors of the embedding would be merged into it, and its own into the embedding.

    Returns:
        its weight (vocabulary, d_model), as the embedding is stored, or edited, in float32; and its bias as it is.
    """
    anatomy, readers = plan.anatomy, _readers(plan)
    edit = readers.get(anatomy.unembedding_weight)
    if not plan.unties or (edit is None and anatomy.embedding_weight not in plan.tensors()):
        return {}
    weight = read(anatomy.embedding_weight)
    others = [name for name in anatomy.shapes if name.startswith(f"{anatomy.unembedding}.")]
    found = {name: read(name) for name in others if name != anatomy.unembedding_weight}
    return {anatomy.unembedding_weight: weight if edit is None else edit(weight.float()), **found}


def _readers(plan: EditPlan) -> dict[str, TensorEdit]:
    """The low-rank edits of the reading weights, which leave the norms' gains unchanged."""
    return {name: edit for turn in plan.reflections for name, edit in (turn.low_rank or {}).items()}


def factors_of(plan: EditPlan, read: ParameterReader[Tensor]) -> list[Factors]:
    """The factors of every module that changes.

    Args:
        plan: one that `check_low_rank` lets pass.
    """
    changes, anatomy = plan.tensors(), plan.anatomy
    created = {name.removesuffix(".bias"): vector for name, vector in plan.created.items()}
    wanted = [w for w in anatomy.writers if w.weight in changes or w.bias in changes or w.module in created]
    # A tied unembedding is stored whole, see `own_unembedding`.
    tied = anatomy.unembedding_weight if anatomy.tied else None
    readers = {name: edit for name, edit in _readers(plan).items() if name != tied}
    found = []
    with bar("adapter", len(wanted) + len(readers)) as progress:
        for writer in wanted:
            made = _writing(writer, changes, read)
            if writer.module in created:
                made = _with_bias(made, torch.from_numpy(created[writer.module]).float())
            found.append(made)
            progress.advance()
        for name, edit in readers.items():
            found.append(_reading(name, edit, read))
            progress.advance()
    return found


def _writing(writer: Writer, changes: Mapping[str, TensorEdit], read: ParameterReader[Tensor]) -> Factors:
    """The factors of a writer, whose output is mapped."""
    embedding = writer.role in ("embedding", "position")
    weight = read(writer.weight).float()
    a, b = weight.new_zeros(0, weight.shape[1 - writer.axis]), weight.new_zeros(weight.shape[writer.axis], 0)
    if writer.weight in changes:
        stream_map = changes[writer.weight].map
        a, b = stream_map.linear.lora(weight, writer.axis)
        if stream_map.constant is not None:
            # Every token has a one in this row.
            a = torch.cat([a, a.new_ones(1, a.shape[1])])
            b = torch.cat([b, torch.from_numpy(stream_map.constant).to(b)[:, None]], dim=1)
    made = Factors(module=writer.module, a=a, b=b, embedding=embedding, transposed=writer.axis == 1 and not embedding)
    if writer.bias is None or writer.bias not in changes:
        return made
    stored = read(writer.bias).float()
    return replace(made, stored=stored, bias=changes[writer.bias](stored) - stored)


def _with_bias(made: Factors, vector: Tensor) -> Factors:
    return replace(made, bias=vector if made.bias is None else made.bias + vector)


def _reading(name: str, edit: TensorEdit, read: ParameterReader[Tensor]) -> Factors:
    """The factors of a reader, whose input is mapped: each row w becomes `w - (w^T L) R^T`."""
    weight = read(name).float()
    out_in = weight if edit.axis == 1 else weight.T
    left, right, _ = edit.map.factors(out_in.device, out_in.dtype)
    return Factors(module=name.removesuffix(".weight"), a=left.T, b=-(out_in @ right), transposed=edit.axis == 0)
