"""The four forms of change that edits make to the residual stream, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.utils.arrays import Floats
from weight_edit.utils.fixed_decompositions import qr, svd
from weight_edit.utils.fixed_sums import inner_products, product, transposed_product


@dataclass(frozen=True)
class StreamMap:
    """One affine map of the whole stream.

    Every writer's output goes through its linear part; its constant enters once and stays.

    Attributes:
        map: at full strength.
        enters: the block at whose input the constant enters; in front of it the stream is without.
        keep_norms: each column of a writer's matrix is brought back to its length afterwards.
    """

    map: LowRankMap
    enters: int = 0
    keep_norms: bool = False


@dataclass(frozen=True)
class Addition:
    """Constant vectors added to the stream at the inputs of blocks, hence biases.

    Attributes:
        vectors: block -> float64, (d_model,).
    """

    vectors: Mapping[int, Floats]


@dataclass(frozen=True)
class BasisChange:
    """A reflection `x -> x - 2 V V^T x` of the stream at the input of one block, once.

    No writer can do that for what comes from before the block. But all that follows can be rotated instead: what reads
    the stream from that block on reads it through the reflection, and what writes to it writes through it.

    Attributes:
        layer: the block.
        map: the reflection; it is its own inverse.
    """

    layer: int
    map: LowRankMap


@dataclass(frozen=True)
class RuntimeOnly:
    """A change that no weights can make: it can be hooked and tried, but not baked.

    Attributes:
        layer: the block at whose input it acts.
        why: what makes it so, a clause.
        nearest: the edit that comes nearest and can be baked: arguments of `bake`, between backticks.
        map: what it does there.
        rectified: whether it acts only where the component along a direction is above zero.
    """

    layer: int
    why: str
    nearest: str
    map: LowRankMap
    rectified: bool = False


Change: TypeAlias = StreamMap | Addition | BasisChange | RuntimeOnly


def removed(stream_map: LowRankMap, tolerance: float = 1e-5) -> Floats:
    """The directions that a map removes from its input.

    Args:
        map: `x -> x - L R^T x`; its constant plays no part.

    Returns:
        orthonormal rows u, (k, d_model), with `u^T (x - L R^T x) = 0` for every x.
    """
    # Such u lie in the span of R = q r. With u = q b the condition is b^T (I - q^T L r^T) = 0, a problem of size k.
    q, r = qr(stream_map.right)
    inner = np.eye(stream_map.rank) - inner_products(transposed_product(q, stream_map.left), r)
    u, sizes, _ = svd(inner)
    return product(q, u[:, sizes < tolerance * max(1.0, float(sizes.max(initial=0.0)))]).T
