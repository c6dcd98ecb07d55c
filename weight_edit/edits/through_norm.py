"""The map *before* a norm that is equivalent to an edit *after* it (post-norm blocks).

In Gemma 2/3, OLMo 2 and others a norm stands between the writer and the stream: the stream receives
`gain * z / rms(z)` of the writer's output z. Its component along v is `(gain * v)^T z / rms(z)`, so z must have
none along `gain * v`: projecting z by v itself leaks. LayerNorm first subtracts the mean of z, so there the vector is
`gain * v` less its own mean, and the norm's bias, which goes to the stream as it is, goes through the edit itself.

An oblique map `I - L R^T` becomes `I - (L / gain) (gain * R)^T`: behind the norm that is the map itself, times a number
for each token (the two lengths that the norm divides by), so that what R finds is gone all the same.
"""

import numpy as np

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.projection import ablation, orthonormal_rows
from weight_edit.utils.arrays import Floats, Numbers, as_float64
from weight_edit.utils.fixed_sums import dot, row_sums, transposed_product

_SMALLEST = 1e-6
"""The relative size below which a gain counts as zero, since the map divides by gains."""


def map_before_norm(stream_map: LowRankMap, gain: Numbers, *, centred: bool) -> LowRankMap:
    """The linear map before a norm that is equivalent to a map after it.

    Args:
        stream_map: of the stream; its constant plays no part.
        gain: shape (d_model,), what the norm multiplies by (already `1 + weight` where the family has that).
        centred: True for LayerNorm, which subtracts the mean.

    Raises:
        ValueError: an oblique map, and a gain of zero, or a norm that subtracts the mean.
    """
    if not stream_map.rank:
        return stream_map.linear
    strength = symmetric_strength(stream_map)
    if strength is not None:
        return ablation(before_norm(stream_map.right.T, gain, centred=centred), strength)
    gains = as_float64(gain)
    if centred:
        raise ValueError("an oblique map cannot be laid in front of a LayerNorm, which takes off a mean")
    if not np.abs(gains).min() > _SMALLEST * np.abs(gains).max():
        raise ValueError("an oblique map cannot be laid in front of a norm that has gains of zero")
    return LowRankMap(stream_map.left / gains[:, None], stream_map.right * gains[:, None])


def symmetric_strength(stream_map: LowRankMap, tolerance: float = 1e-4) -> float | None:
    """The s of a map `x -> x - s V V^T x` with orthonormal V = `right`; None for any other map."""
    gram = transposed_product(stream_map.right, stream_map.right)
    if stream_map.rank == 0 or not np.abs(gram - np.eye(stream_map.rank)).max() < tolerance:
        return None
    strength = dot(stream_map.left, stream_map.right) / stream_map.rank
    same = np.abs(stream_map.left - strength * stream_map.right).max() <= tolerance * max(1e-12, abs(strength)) * 1e-2
    return strength if same else None


def before_norm(directions: Numbers, gain: Numbers, *, centred: bool) -> Floats:
    """Orthonormal rows that span `gain * v` for every v, float64.

    Args:
        directions: shape (k, d_model), the directions to be absent from the stream.
        gain: shape (d_model,), what the norm multiplies by (already `1 + weight` where the family has that).
        centred: True for LayerNorm, which subtracts the mean.

    Returns:
        shape (k', d_model) with k' <= k: a direction that the gain sends to zero needs no projection.
    """
    rows = as_float64(directions) * as_float64(gain)
    if centred:
        rows = rows - row_sums(rows)[:, None] / rows.shape[1]
    return orthonormal_rows(rows)
