"""Parameters that lie on disk: they have a shape and a dtype, and are read by whoever computes with them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

Change = Callable[[Tensor], Tensor]


class Answers(Protocol):
    """What computes with a parameter's values."""

    device: torch.device

    def looked_up(self, parameter: "DiskParameter", ids: Tensor) -> Tensor:
        """The rows of an embedding."""

    def multiplied(self, parameter: "DiskParameter", x: Tensor, bias: Tensor | None) -> Tensor:
        """The output of a linear layer."""

    def piece(self, parameter: "DiskParameter", index: int) -> Tensor:
        """One of the matrices that a parameter of a mixture stacks."""

    def whole(self, parameter: "DiskParameter") -> Tensor:
        """All values."""


class DiskParameter(nn.Parameter):
    """A parameter without values.

    It stands in a module wherever its values are not in place. What asks for its shape, dtype or device is told; an
    embedding, a linear layer and the choice of one expert read the part that they use; all else reads the whole.

    Attributes:
        key: its name in the model; where several are tied, of the one that is stored.
        answers: whoever reads it.
        changes: what is made of the values wherever they are used, one after the other.
    """

    key: str
    answers: Answers
    changes: list[Change]

    def __new__(cls, like: Tensor, key: str, answers: Answers) -> "DiskParameter":
        """A parameter like `like`, which is on the meta device."""
        made: DiskParameter = torch.Tensor._make_subclass(cls, like.detach(), False)
        made.key, made.answers, made.changes = key, answers, []
        return made

    @contextmanager
    def changed(self, fn: Change) -> Iterator[None]:
        """Within the context, `fn` is applied to the values wherever they are used.

        Of an embedding and an unembedding it is asked for some rows at a time, so it must be what it makes of each row.
        """
        self.changes.append(fn)
        try:
            yield
        finally:
            self.changes.remove(fn)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _TOLD:
            return _TOLD[func](args[0])
        if func in _PLAIN:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is embedding:
            ids, weight, _, max_norm = _embedding_arguments(*args, **kwargs)
            if isinstance(weight, cls) and max_norm is None:
                return weight.answers.looked_up(weight, ids)
        if func is linear:
            x, weight, bias = _linear_arguments(*args, **kwargs)
            if isinstance(weight, cls) and not isinstance(x, cls):
                return weight.answers.multiplied(weight, x, _read(bias))
        if func is Tensor.__getitem__ and isinstance(args[0], cls):
            parameter, index = args
            if parameter.ndim == 3 and (isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0)):
                return parameter.answers.piece(parameter, int(index))
            if parameter.ndim == 2 and isinstance(index, tuple) and isinstance(index[0], int) and index[0] >= 0:
                # The padding's embedding, say.
                ids = torch.tensor(index[:1], device=parameter.answers.device)
                return parameter.answers.looked_up(parameter, ids)[(0, *index[1:])]
        return func(*_read(args), **_read(kwargs))


def _embedding_arguments(
    input: Tensor,  # noqa: A002 (torch's name)
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *_: Any,
    **__: Any,
) -> tuple[Tensor, Tensor, int | None, float | None]:
    return input, weight, padding_idx, max_norm


def _linear_arguments(
    input: Tensor,  # noqa: A002 (torch's name)
    weight: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _read(value: Any) -> Any:
    """A value with the values of all parameters in it."""
    if isinstance(value, DiskParameter):
        return value.answers.whole(value)
    if isinstance(value, tuple | list):
        return type(value)(_read(each) for each in value)
    if isinstance(value, dict):
        return {key: _read(each) for key, each in value.items()}
    return value


_TOLD: Mapping[Any, Callable[[Any], Any]] = {
    Tensor.device.__get__: lambda p: p.answers.device,
    Tensor.is_meta.__get__: lambda _: False,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda p: p.answers.device.type == "cpu",  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda p: p.answers.device.type == "cuda",  # type: ignore[attr-defined]
    Tensor.__repr__: lambda p: f"DiskParameter({p.key!r}, {tuple(p.shape)}, {p.dtype})",
}
_ATTRIBUTES = (
    "shape, dtype, ndim, requires_grad, is_leaf, grad, grad_fn, layout, is_sparse, is_quantized, is_nested, nbytes, "
    "itemsize, _backward_hooks, _post_accumulate_grad_hooks"
)
_METHODS = (
    "size, numel, nelement, dim, ndimension, stride, element_size, is_floating_point, is_complex, is_contiguous, "
    "requires_grad_, __len__, __hash__"
)
_PLAIN = frozenset(
    {
        *(getattr(Tensor, name).__get__ for name in _ATTRIBUTES.split(", ")),
        *(getattr(Tensor, name) for name in _METHODS.split(", ")),
        Tensor.requires_grad.__set__,  # type: ignore[attr-defined]
        torch.is_floating_point,
        torch.is_complex,
        torch.numel,
    }
)
"""What needs no values."""
