"""A model that computes in another dtype than it is stored in, converted block by block.

Everything inside a block finds all of that block's parameters in the other dtype while the block runs. Outside of
blocks it is each module's own. Of a large embedding only the rows that are looked up are converted, and of a large
linear layer, such as the unembedding, some of its rows at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.runtime.loading import Model
from weight_edit.runtime.offload.parameters import DiskParameter

LARGE = 1 << 23
"""Numbers in an embedding or a linear layer above which it is converted in parts."""

Change = Callable[[Tensor], Tensor]


class MixedError(Exception):
    """The model's code depends on the stored dtype or uses weights without calling their module."""


@contextmanager
def widened(model: Model, dtype: torch.dtype, changes: Mapping[str, Change] | None = None) -> Iterator[None]:
    """Within the context, let a model compute in `dtype`.

    Args:
        dtype: of the parameters while they are used; with that of the model, nothing is converted.
        changes: parameter -> what is made of it, converted, whenever it is used. In embeddings and unembeddings this is
            asked for some rows at a time, so it must be what it makes of each row.

    Raises:
        MixedError: in a forward pass, where the model cannot be run so; load it in `dtype` instead.
    """
    named = {name: model.model.get_parameter(name) for name in changes or {}}
    on_disk = {name: each for name, each in named.items() if isinstance(each, DiskParameter)}
    weights = _Weights(dtype, {id(each): (changes or {})[name] for name, each in named.items() if name not in on_disk})
    blocks = [model.model.get_submodule(block.module) for block in model.anatomy.blocks]
    within = {id(module) for block in blocks for module in block.modules()}
    with ExitStack() as attached:
        attached.callback(weights.restore)
        if model.offload is not None:
            # What is read from disk is converted as it is read.
            attached.enter_context(model.offload.computing(dtype))
            for name, parameter in on_disk.items():
                attached.enter_context(parameter.changed((changes or {})[name]))
        for block in blocks:
            _attach(attached, block, weights, _in_memory([*block.parameters(), *block.buffers()]), first=True)
        for module in model.model.modules():
            own = _in_memory([*module.parameters(recurse=False), *module.buffers(recurse=False)])
            if id(module) in within or not own:
                continue
            large = own[0].numel() >= LARGE and "forward" not in vars(module)
            if large and isinstance(module, nn.Embedding):
                attached.enter_context(_some_rows(module, weights))
            elif large and type(module) is nn.Linear:
                attached.enter_context(_in_pieces(module, weights))
            else:
                _attach(attached, module, weights, own)
        try:
            yield
        except RuntimeError as error:
            if "dtype" in str(error) or "scalar type" in str(error):
                raise MixedError(str(error)) from error
            raise


def _in_memory(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if not isinstance(tensor, DiskParameter)]


class _Weights:
    """The currently converted tensors, with their stored values."""

    def __init__(self, dtype: torch.dtype, changes: Mapping[int, Change]) -> None:
        self._dtype, self._changes = dtype, changes
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, tensor: Tensor, stored: Tensor | None = None) -> Tensor:
        """The converted and changed value of a parameter, or of its rows `stored`."""
        change = self._changes.get(id(tensor))
        # What is made in inference mode could not stand in for what was not.
        with torch.inference_mode(False), torch.no_grad():
            converted = (tensor.data if stored is None else stored).to(self._dtype)
            return converted if change is None else change(converted)

    def convert(self, tensors: Iterable[Tensor]) -> list[int]:
        """Convert the weights that are still stored; returns the keys for `restore`."""
        done = []
        for tensor in tensors:
            other = tensor.is_floating_point() and (tensor.dtype != self._dtype or id(tensor) in self._changes)
            if other and id(tensor) not in self._stored:
                self._stored[id(tensor)] = (tensor, tensor.data)
                tensor.data = self.of(tensor)
                done.append(id(tensor))
        return done

    def restore(self, which: Iterable[int] | None = None) -> None:
        """Restore the stored values of some weights, or of all."""
        for key in list(self._stored) if which is None else which:
            if key in self._stored:
                tensor, stored = self._stored.pop(key)
                tensor.data = stored

    def check(self, given: Iterable[Any]) -> None:
        """Raise `MixedError` if an input has a coarser dtype than the computation; finer ones pass."""
        for value in given:
            if isinstance(value, Tensor) and value.is_floating_point():
                if torch.finfo(value.dtype).eps > torch.finfo(self._dtype).eps:
                    raise MixedError(f"a module was given {value.dtype} where {self._dtype} was expected")
                return


def _attach(attached: ExitStack, module: nn.Module, weights: _Weights, own: list[Tensor], first: bool = False) -> None:
    """Convert a module's tensors before it runs, and restore them after."""
    converted: list[list[int]] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if first:
            weights.check([*args, *kwargs.values()])
        converted.append(weights.convert(own))

    def after(*_: Any) -> None:
        if converted:
            weights.restore(converted.pop())

    attached.callback(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True).remove)
    attached.callback(module.register_forward_hook(after, always_call=True).remove)


@contextmanager
def _some_rows(module: nn.Embedding, weights: _Weights) -> Iterator[None]:
    """Within the context, an embedding converts only the rows that it looks up."""
    weight, padding = module.weight, module.padding_idx
    stored = weight.data

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = args[0] if args else kwargs["input"]
        rows, places = torch.unique(ids, return_inverse=True)
        weight.data = weights.of(weight, stored[rows])
        # The row of the padding is no longer where it was; it matters to gradients alone.
        module.padding_idx = None
        return ((places, *args[1:]), kwargs) if args else (args, {**kwargs, "input": places})

    def after(*_: Any) -> None:
        weight.data, module.padding_idx = stored, padding

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        after()


@contextmanager
def _in_pieces(module: nn.Linear, weights: _Weights) -> Iterator[None]:
    """Within the context, a linear layer computes its outputs a few rows at a time."""
    count = max(1, LARGE // module.in_features)

    def forward(x: Tensor) -> Tensor:
        weights.check([x])
        stored = module.weight.data
        out = x.new_empty((*x.shape[:-1], len(stored)))
        for begin in range(0, len(stored), count):
            out[..., begin : begin + count] = x @ weights.of(module.weight, stored[begin : begin + count]).T
        return out if module.bias is None else out + weights.of(module.bias)

    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
