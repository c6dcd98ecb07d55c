"""The one object behind every edit: a low-rank affine map on the residual stream, with its three faces."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRankMap:
    """The map `x -> x - left (right^T x) + constant` on vectors of the residual stream.

    The same map is a hook (`apply`), an edit of weights (`on_weight`, `on_bias`) and a pair of adapter factors
    (`lora`); tests show that the three agree. Arithmetic runs in float32, or in float64 for float64 input, and is
    rounded once to the dtype of the input.

    Attributes:
        left: float32 or float64, shape (d_model, k).
        right: same dtype and shape as `left`.
        constant: shape (d_model,), or None for no constant.

    Raises:
        ValueError: when the shapes do not fit one another.
    """

    left: Tensor
    right: Tensor
    constant: Tensor | None = None

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.left.shape != self.right.shape:
            raise ValueError(f"left {tuple(self.left.shape)} and right {tuple(self.right.shape)} must be (d, k)")
        if self.constant is not None and self.constant.shape != self.left.shape[:1]:
            raise ValueError(f"constant {tuple(self.constant.shape)} must be ({self.left.shape[0]},)")

    @property
    def width(self) -> int:
        """d_model."""
        return self.left.shape[0]

    @property
    def rank(self) -> int:
        """k, the number of directions."""
        return self.left.shape[1]

    def apply(self, x: Tensor) -> Tensor:
        """The hook: the map applied to the last axis of x, shape (..., d_model), in any floating dtype."""
        exact = _working_dtype(x)
        left, right = self.left.to(x.device, exact), self.right.to(x.device, exact)
        work = x.to(exact)
        work = work - (work @ right) @ left.T
        if self.constant is not None:
            work = work + self.constant.to(x.device, exact)
        return work.to(x.dtype)

    def on_weight(self, weight: Tensor, axis: int) -> Tensor:
        """The weights: a tensor whose vectors along `axis` are written into the stream, after the map.

        `axis` is 0 for `nn.Linear` (out, in), 1 for `Conv1D` (in, out) and for an embedding (tokens, d_model). The
        constant is left out: it belongs into a bias (`on_bias`), once per writer or per stream.

        Raises:
            ValueError: when the tensor is not d_model wide along `axis`.
        """
        if weight.shape[axis] != self.width:
            raise ValueError(f"axis {axis} of {tuple(weight.shape)} is not {self.width} wide")
        rows = weight.movedim(axis, -1)
        return LowRankMap(self.left, self.right).apply(rows).movedim(-1, axis).contiguous()

    def on_bias(self, bias: Tensor) -> Tensor:
        """The bias of a writer, shape (d_model,), after the map, constant included."""
        return self.apply(bias)

    def lora(self, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The adapter: factors (A, B) in the working dtype, such that `B A` is the change of the (out, in) matrix.

        Args:
            weight: the writer's matrix, 2-dimensional.
            axis: where its outputs lie, as in `on_weight`.

        Returns:
            A of shape (k, in) = right^T W, and B of shape (d_model, k) = -left.
        """
        exact = _working_dtype(weight)
        out_in = (weight if axis == 0 else weight.T).to(exact)
        right, left = self.right.to(weight.device, exact), self.left.to(weight.device, exact)
        return right.T @ out_in, -left

    def transposed(self) -> "LowRankMap":
        """The adjoint of the linear part: what a reader's input goes through when the reader's rows were mapped."""
        return LowRankMap(self.right, self.left)


def _working_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
