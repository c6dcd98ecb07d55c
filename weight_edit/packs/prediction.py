"""The guess of what an edit changed, made of its result and of what it took away.

Of `W' = round(g W - L P + c)`, with `P = R^T (g W)`, the guess is `(W' - c + L P) / g`: it is off by what rounding was
off by, at most half a step, so that rounded again it is W itself wherever the steps of both are the same. Where lengths
were kept, by factors f, it is `W' / f + L P`. All is done number by number and in one order, so that two machines
have the same guess.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Factors:
    """What of a map a guess needs.

    Attributes:
        left: L, (d, k).
        constant: c, (d,), or None.
        inverse_gains: 1 / g, (d,), 0 where g is; None for 1.
    """

    left: Floats
    constant: Floats | None = None
    inverse_gains: Floats | None = None

    @property
    def width(self) -> int:
        """d."""
        return int(self.left.shape[0])

    @property
    def rank(self) -> int:
        """k."""
        return int(self.left.shape[1])


@dataclass(frozen=True, eq=False)
class Removed:
    """What an edit took from some vectors.

    Attributes:
        sums: P, (k, vectors).
        inverse_lengths: 1 / f, (vectors,), 0 where f is; None for 1.
    """

    sums: Floats
    inverse_lengths: Floats | None = None


def guessed(
    values: Floats, factors: Factors, removed: Removed, rows: tuple[int, int], along_rows: bool
) -> tuple[Floats, Floats | None]:
    """The guess in place of an edited tensor's numbers, and by what each of these was multiplied (None for 1).

    Args:
        values: float64, (rows, columns); changed.
        removed: of the vectors in them.
        rows: which rows of the matrix they are.
        along_rows: whether the vectors are columns.
    """

    def spread(per_entry: Floats) -> Floats:
        return per_entry[slice(*rows), None] if along_rows else per_entry[None]

    def by_vector(per_vector: Floats) -> Floats:
        return per_vector[None] if along_rows else per_vector[:, None]

    scale = None
    if removed.inverse_lengths is not None:
        scale = by_vector(removed.inverse_lengths)
        values *= scale
    if factors.constant is not None:
        values -= spread(factors.constant)
    for left, sums in zip(factors.left.T, removed.sums, strict=True):
        values += spread(left) * by_vector(sums)
    if factors.inverse_gains is not None:
        scale = spread(factors.inverse_gains)
        values *= scale
    np.copyto(values, 0.0, where=~np.isfinite(values))
    return values, None if scale is None else np.broadcast_to(scale, values.shape)


def inverse(numbers: Floats) -> Floats:
    """1 / x, and 0 where that is not finite."""
    with np.errstate(divide="ignore", over="ignore"):
        found = 1.0 / numbers
    return np.where(np.isfinite(found), found, 0.0)


def as_planes(numbers: Floats, item: int) -> bytes:
    """Numbers as bytes, the first ones of all of them first, which compress better; exact after `coarse`."""
    stored = np.ascontiguousarray(numbers).astype(f"<f{item}")
    return stored.view(np.uint8).reshape(-1, item).T.tobytes()


def of_planes(raw: bytes | memoryview, item: int) -> Floats:
    """The numbers of `as_planes`, flat."""
    planes = np.frombuffer(raw, np.uint8).reshape(item, -1)
    return np.ascontiguousarray(planes.T).view(f"<f{item}").reshape(-1).astype(np.float64)


def coarse(numbers: Floats, item: int) -> Floats:
    """The numbers with the last bits of their fractions cleared: a few of them cost less in corrections than in place.

    Args:
        item: bytes of a stored one: 4 keeps 16 bits of the fraction, 8 keeps 36.
    """
    bits, kept = (23, 15) if item == 4 else (52, 36)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(numbers).astype(f"<f{item}")
    unsigned = stored.view(f"<u{item}")
    unsigned &= np.array(~((1 << (bits - kept)) - 1) & ((1 << (8 * item)) - 1), unsigned.dtype)
    found = stored.astype(np.float64)
    return np.where(np.isfinite(found), found, 0.0)
