"""The low-rank affine map on the residual stream that every edit is made of.

It has three forms: a hook, edited weights and a LoRA adapter, whose factors `adapters/truncation.py` makes of it.

`lowest_rank` brings the factors of maps that were composed back to the least number of columns.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from weight_edit.utils.arrays import Floats, as_float64, norm_restoring_factors
from weight_edit.utils.fixed_decompositions import qr, svd
from weight_edit.utils.fixed_sums import column_squares, dot, inner_products, product, transposed_product

if TYPE_CHECKING:
    import torch
    from torch import Tensor


TOLERANCE = 2.0**-46
"""Relative size below which a singular value of the product counts as zero."""


def lowest_rank(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Factors of the same product `left right^T` with the fewest columns.

    The very same factors are returned if they have that few already.

    New ones have orthonormal columns on the right, and those of the left in the order of their size.

    Args:
        left, right: float64, shape (d, k).

    Returns:
        both of shape (d, rank).
    """
    if not left.size:
        return left, right
    q_left, r_left = qr(left)
    q_right, r_right = qr(right)
    u, sizes, v = svd(inner_products(r_left, r_right))
    # Against the columns' own sizes and not the largest singular value: two maps may undo each other, and then
    # rounding is all there is.
    reach = dot(np.sqrt(column_squares(left)), np.sqrt(column_squares(right)))
    rank = int(np.count_nonzero(sizes > TOLERANCE * reach))
    if rank == left.shape[1]:
        return left, right
    return product(q_left, u[:, :rank] * sizes[:rank]), product(q_right, v[:rank].T)


_BLOCK = 1 << 20
"""Entries held in float64 at a time."""

_TILE = 1 << 17
"""Entries held in float64 at a time during a bake, whose memory is to stay small."""


@dataclass(frozen=True, eq=False)
class LowRankMap:
    """The map `x -> x - left (right^T x) + constant` on vectors of the residual stream.

    The same map is a hook (`apply`), an edit of weights (`on_stored`, `on_bias`) and a pair of adapter factors
    (`adapters.truncation.factors_of_rows`); tests show that the three agree. The factors are numpy arrays, so that a
    checkpoint can be edited without torch; they may be given as torch tensors. A hook computes in float32, or in
    float64 for float64 input; stored weights are computed in float64. Either way the result is rounded once.

    Attributes:
        left: float64, shape (d_model, k).
        right: float64, same shape as `left`.
        constant: float64, shape (d_model,), or None for no constant.

    Raises:
        ValueError: when the shapes do not fit one another.
    """

    left: Floats
    right: Floats
    constant: Floats | None = None
    _uploaded: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("left", "right", "constant"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, as_float64(given))
        if self.left.ndim != 2 or self.left.shape != self.right.shape:
            raise ValueError(f"left {self.left.shape} and right {self.right.shape} must be (d, k)")
        if self.constant is not None and self.constant.shape != self.left.shape[:1]:
            raise ValueError(f"constant {self.constant.shape} must be ({self.left.shape[0]},)")

    @property
    def width(self) -> int:
        """d_model."""
        return int(self.left.shape[0])

    @property
    def rank(self) -> int:
        """k, the number of directions."""
        return int(self.left.shape[1])

    @property
    def idempotent(self) -> bool:
        """Whether the linear part is a projection: applying it twice equals applying it once."""
        # (I - L R^T)^2 = I - L R^T - L (I - R^T L) R^T
        kept = np.eye(self.rank) - transposed_product(self.right, self.left)
        again = _largest(product(self.left, kept), self.right)
        return again < 1e-5 * max(1.0, _largest(self.left, self.right))

    @property
    def linear(self) -> "LowRankMap":
        """The same map without its constant."""
        return self if self.constant is None else LowRankMap(self.left, self.right)

    def factors(self, device: "torch.device", dtype: "torch.dtype") -> tuple["Tensor", "Tensor", "Tensor | None"]:
        """`left`, `right` and `constant` as torch tensors; made once for each device and dtype."""
        import torch

        key = (device, dtype)
        if key not in self._uploaded:
            # What is made under inference mode could not be used outside of it by a model that is being trained.
            with torch.inference_mode(False):
                self._uploaded[key] = tuple(
                    None if array is None else torch.from_numpy(array).to(device, dtype, copy=True)
                    for array in (self.left, self.right, self.constant)
                )
        left, right, constant = self._uploaded[key]
        return left, right, constant

    def apply(self, x: "Tensor") -> "Tensor":
        """The map on the last axis of x, shape (..., d_model), in any floating dtype: the hook."""
        work = x.to(_working_dtype(x))
        left, right, constant = self.factors(work.device, work.dtype)
        if self.rank:
            work = work - (work @ right) @ left.T
        if constant is not None:
            work = work + constant
        return work.to(x.dtype)

    __call__ = apply

    def on_bias(self, bias: "Tensor") -> "Tensor":
        """The bias of a writer, shape (d_model,), after the map, constant included."""
        return self.on_stored(bias, 0)

    def on_stored(
        self, tensor: "Tensor", axis: int, *, gains: Floats | None = None, keep_norms: bool = False
    ) -> "Tensor":
        """The map, with its constant, along one axis of a stored tensor; dtype and shape stay.

        Computed in float64 and rounded once to nearest even; to bfloat16 by way of float32. This is the formula that
        an edited checkpoint is held to.

        Args:
            gains, keep_norms: what is done to each vector before and after the map, see `TensorEdit`.

        Raises:
            ValueError: when the tensor is not d_model wide along `axis`.
        """
        import torch

        if tensor.ndim == 0 or tensor.shape[axis] != self.width:
            raise ValueError(f"axis {axis} of {tuple(tensor.shape)} is not {self.width} wide")
        left, right, constant = self.factors(tensor.device, torch.float64)
        moved = tensor.detach().movedim(axis, -1)
        vectors = moved.reshape(-1, self.width)
        mapped = torch.empty_like(vectors)
        step = max(1, _BLOCK // self.width)
        factors = None if gains is None else torch.from_numpy(gains).to(tensor.device)
        for start in range(0, len(vectors), step):
            before = vectors[start : start + step].double()
            before = before if factors is None else before * factors
            exact = before - (before @ right) @ left.T
            exact = _as_long_as(before, exact) if keep_norms else exact
            mapped[start : start + step] = _rounded(exact if constant is None else exact + constant, tensor.dtype)
        return mapped.reshape(moved.shape).movedim(-1, axis).contiguous()

    def transposed(self) -> "LowRankMap":
        """The adjoint of the linear part: the map of a reader's input that equals mapping its rows."""
        return LowRankMap(self.right, self.left)

    def then(self, other: "LowRankMap") -> "LowRankMap":
        """First this map and then `other`, as one map, of no higher rank than its linear part has.

        Raises:
            ValueError: maps of different widths.
        """
        if self.width != other.width:
            raise ValueError(f"a map {self.width} wide cannot be followed by one {other.width} wide")
        # (I - L2 R2^T)(I - L1 R1^T) = I - L1 R1^T - L2 (R2 - R1 L1^T R2)^T
        left = np.concatenate([self.left, other.left], axis=1)
        seen = product(self.right, transposed_product(self.left, other.right))
        right = np.concatenate([self.right, other.right - seen], axis=1)
        constant = other.constant
        if self.constant is not None:
            constant = self.constant - other.taken_off(self.constant)
            if other.constant is not None:
                constant = constant + other.constant
        return LowRankMap(*lowest_rank(left, right), constant)

    def taken_off(self, vector: Floats) -> Floats:
        """`L R^T x`: what the linear part takes off a vector, (d_model,)."""
        return product(self.left, transposed_product(self.right, vector[:, None]))[:, 0]

    def times(self, strength: float) -> "LowRankMap":
        """The map scaled by a strength: `x + strength * (map(x) - x)`."""
        constant = None if self.constant is None else strength * self.constant
        return LowRankMap(strength * self.left, self.right, constant)

    @classmethod
    def identity(cls, width: int) -> "LowRankMap":
        """The map that changes nothing, of rank 0."""
        return cls(np.zeros((width, 0)), np.zeros((width, 0)))


def _largest(left: Floats, right: Floats) -> float:
    """The largest absolute entry of `left right^T`, shape (d, d), computed in blocks.

    The product is never held whole: d is up to 16,384.
    """
    step = max(1, _TILE // max(1, len(right)))
    blocks = (product(left[first : first + step], right.T) for first in range(0, len(left), step))
    return max((float(np.abs(block).max(initial=0.0)) for block in blocks), default=0.0)


def _working_dtype(x: "Tensor") -> "torch.dtype":
    import torch

    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _as_long_as(before: "Tensor", after: "Tensor") -> "Tensor":
    """The rows of `after`, rescaled to the lengths of the rows of `before`."""
    import torch

    lengths = (torch.linalg.vector_norm(rows, dim=-1).cpu().numpy() for rows in (before, after))
    return after * torch.from_numpy(norm_restoring_factors(*lengths)).to(after.device)[:, None]


def _rounded(exact: "Tensor", dtype: "torch.dtype") -> "Tensor":
    import torch

    if dtype == torch.bfloat16:
        return exact.float().to(dtype)
    if dtype == torch.float16:
        # torch would go by way of float32, which rounds twice; numpy rounds once.
        with np.errstate(over="ignore"):
            return torch.from_numpy(exact.cpu().numpy().astype(np.float16)).to(exact.device)
    return exact.to(dtype)
