"""How much of a difference `D = B - A` the ablation `-s V V^T A` explains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.pairs import Pair, Side, Values


@dataclass(frozen=True, eq=False)
class Products:
    """Products of D and A with vectors V, each of shape (k, k).

    All that is asked of an ablation along directions in the span of V follows from them.

    Attributes:
        dd: V^T D D^T V.
        da: V^T D A^T V.
        aa: V^T A A^T V.
        square: |D|^2.
    """

    dd: Values
    da: Values
    aa: Values
    square: float

    def turned(self, basis: Values) -> "Products":
        """The products for the vectors `V basis`."""
        dd, da, aa = (basis.T @ product @ basis for product in (self.dd, self.da, self.aa))
        return Products(dd, da, aa, self.square)

    @property
    def share(self) -> float:
        """|V^T D|^2 / |D|^2: the share of D along V, of whatever origin."""
        return float(np.trace(self.dd)) / self.square if self.square else 0.0

    @property
    def strength(self) -> float:
        """The s that minimises |D + s V V^T A|; 0 where A vanishes along V."""
        along = float(np.trace(self.aa))
        return -float(np.trace(self.da)) / along if along else 0.0

    def explained(self, strength: float) -> float:
        """1 - |D + s V V^T A|^2 / |D|^2; negative where no edit would fit better."""
        if not self.square:
            return 0.0
        gained = 2 * strength * float(np.trace(self.da)) + strength**2 * float(np.trace(self.aa))
        # Sums in float32 can come out a trace above one.
        return min(1.0, -gained / self.square)


def products(pair: Pair, side: Side, vectors: NDArray[np.floating], square: float) -> tuple[Products, float]:
    """The products of a parameter with some vectors, by another pass over it.

    Args:
        vectors: V, shape (length, k), orthonormal columns.
        square: |D|^2.

    Returns:
        the products, and |A|^2.
    """
    v = vectors.astype(np.float32)
    k = v.shape[1]
    sums = [np.zeros((k, k)) for _ in range(3)]
    norm = 0.0
    for slab in range(pair.slabs):
        d_columns, a_columns = (np.zeros((k, pair.a.cols), np.float32) for _ in range(2))
        for block in pair.blocks(slab):
            a = block.a.astype(np.float32)
            flat = block.a.reshape(-1)
            norm += float(flat @ flat)
            changed = (slab, block.first) in pair.touched
            if side == "columns":
                part = v[block.first : block.last].T
                a_columns += part @ a
                if changed:
                    d_columns += part @ block.change
                continue
            d = (block.change @ v).T if changed else np.zeros((k, len(a)), np.float32)
            _add(sums, d, (a @ v).T)
        if side == "columns":
            _add(sums, d_columns, a_columns)
    return Products(sums[0], sums[1], sums[2], square), norm


def _add(sums: list[Values], d: NDArray[np.float32], a: NDArray[np.float32]) -> None:
    d_wide, a_wide = d.astype(np.float64), a.astype(np.float64)
    sums[0] += d_wide @ d_wide.T
    sums[1] += d_wide @ a_wide.T
    sums[2] += a_wide @ a_wide.T
