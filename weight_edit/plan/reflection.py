"""An exact reflection at one layer: every later block works in the reflected basis.

Let `H = I - 2 V V^T` act once, at the input of block l. Instead, keep the stream as it is and let all that follows see
it through H, which is its own inverse: writers `W <- H W`, `b <- H b`, and readers, which see `gain * norm(x)`,
`W <- W diag(gain) H` with the norm's gain folded in and set to 1. RMSNorm gives the same for x and H x, up to H;
LayerNorm does where the directions are orthogonal to the vector of ones, so that H changes neither mean nor variance;
its bias becomes `H (bias / gain)`. (Derived.)

An adapter cannot set gains. For it, and with D = diag(gain), readers become `W D H D^-1`, which is the same product and
differs from W by a matrix of low rank. In a checkpoint, dividing by small gains would make columns of large numbers,
which formats with a scale for a block of numbers do not take well.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from weight_edit.anatomy.parts import Anatomy, Norm
from weight_edit.edits.changes import BasisChange
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UnsupportedError
from weight_edit.plan.writer_edits import ParameterReader
from weight_edit.utils.arrays import Floats, Numbers, as_float64
from weight_edit.utils.fixed_sums import row_sums

if TYPE_CHECKING:
    from weight_edit.anatomy.readers import Reading

_SMALLEST = 1e-6
_INSTEAD = "reflect all writers instead (leave `at` out)"


@dataclass(frozen=True, eq=False)
class Reflection:
    """A change of basis, planned for a model.

    Attributes:
        layer: from this block on.
        map: the reflection of the stream.
        writing: parameter -> axis, of weights and biases that write.
        reading: parameter -> its edit: weights that read, gains and biases of the norms in front of them.
        low_rank: the weights that read -> their edit where norms stay as they are; None where a norm would have to
            change all the same, or has gains of zero.
    """

    layer: int
    map: LowRankMap
    writing: Mapping[str, int]
    reading: Mapping[str, TensorEdit]
    low_rank: Mapping[str, TensorEdit] | None

    def applied(self, changes: Mapping[str, TensorEdit]) -> dict[str, TensorEdit]:
        """The changes of parameters, each followed by the reflection."""
        turned = {name: TensorEdit(self.map, axis) for name, axis in self.writing.items()}
        for name in turned.keys() & changes.keys():
            turned[name] = replace(changes[name], map=changes[name].map.then(self.map))
        return {**changes, **turned, **self.reading}

    def of_created(self, created: Mapping[str, Floats]) -> dict[str, Floats]:
        """The created biases, reflected where the reflection changes their writers."""
        weights = {name.removesuffix(".weight"): name for name in self.writing}
        return {
            name: _times(self.map, vector) if name.removesuffix(".bias") in weights else vector
            for name, vector in created.items()
        }


def plan_reflection(
    anatomy: Anatomy, change: BasisChange, read: ParameterReader[Numbers], reading: "Reading | None"
) -> Reflection:
    """The plan of a change of basis: which parameters it changes, and how.

    Args:
        read: gives a norm's weight by name.
        reading: how the model reads the stream.

    Raises:
        UnsupportedError: a norm stands between a writer and the stream, a norm has gains of zero, or a LayerNorm reads
            the stream and the directions are not orthogonal to the vector of ones.
    """
    if reading is None:
        raise ValueError("a change of basis needs to know how the stream is read")
    writing: dict[str, int] = {}
    for writer in anatomy.writers:
        if writer.layer is None or writer.layer < change.layer:
            continue
        if writer.norm is not None:
            raise UnsupportedError(
                f"{anatomy.architecture}: the norm '{writer.norm.module or writer.norm.weight}' stands between a "
                f"writer and the residual stream, so that a reflection at one layer cannot be baked; {_INSTEAD}",
                option="at",
            )
        writing[writer.weight] = writer.axis
        if writer.bias is not None:
            writing[writer.bias] = writer.bias_axis
    edits: dict[str, TensorEdit] = {}
    low_rank: dict[str, TensorEdit] | None = {}
    nothing = np.zeros((change.map.width, 0))
    for each in reading.weights:
        if each.layer is not None and each.layer < change.layer:
            continue
        gain, norm = _gain(each.norm, anatomy, change, read), each.norm
        edits[each.weight] = TensorEdit(change.map, each.axis, gain)
        if norm is not None and norm.weight is not None:
            ones = LowRankMap(nothing, nothing, np.full(change.map.width, 1 - norm.gain_offset))
            edits[norm.weight] = TensorEdit(ones, 0, np.zeros(change.map.width))
        if norm is not None and norm.bias is not None:
            edits[norm.bias] = TensorEdit(change.map, 0, 1 / gain)
        if low_rank is not None:
            able = (norm is None or norm.bias is None) and _divides(gain)
            low_rank = {**low_rank, each.weight: _conjugated(change.map, gain, each.axis)} if able else None
    return Reflection(change.layer, change.map, writing, edits, low_rank)


def _gain(norm: Norm | None, anatomy: Anatomy, change: BasisChange, read: ParameterReader[Numbers]) -> Floats:
    width = change.map.width
    if norm is None:
        return np.ones(width)
    if norm.kind == "layer":
        along = float(np.abs(row_sums(change.map.right.T)).max(initial=0.0)) / math.sqrt(width)
        if not along < 1e-4:
            raise UnsupportedError(
                f"{anatomy.architecture} reads the residual stream through LayerNorm, which takes off its mean: a "
                "reflection at one layer is exact only for directions whose entries sum to zero (these have "
                f"{along:.1e} along the vector of ones); {_INSTEAD}",
                option="at",
            )
    if norm.weight is None:
        return np.ones(width)
    gain = as_float64(read(norm.weight)) + norm.gain_offset
    if norm.bias is not None and not _divides(gain):
        raise UnsupportedError(
            f"'{norm.weight}' has gains of zero, by which a change of basis would divide '{norm.bias}'; {_INSTEAD}",
            option="at",
        )
    return gain


def _divides(gain: Floats) -> bool:
    return bool(np.abs(gain).min() > _SMALLEST * np.abs(gain).max())


def _conjugated(stream_map: LowRankMap, gain: Floats, axis: int) -> TensorEdit:
    """The edit by `D^-1 H D` of the rows of W, which makes W into `W D H D^-1`."""
    return TensorEdit(LowRankMap(stream_map.left / gain[:, None], stream_map.right * gain[:, None]), axis)


def _times(stream_map: LowRankMap, vector: Floats) -> Floats:
    return vector - stream_map.taken_off(vector)
