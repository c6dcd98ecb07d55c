"""Places in a forward pass at which weights are read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from weight_edit.runtime.offload.buffers import IN_MEMORY, empty, in_file
from weight_edit.runtime.offload.parameters import DiskParameter
from weight_edit.runtime.offload.reader import Runs

SLICE = 1 << 26
"""Bytes of an unembedding that are in memory at once."""


class Reads(Protocol):
    """Values of parameters from disk, changed and in the dtype that is asked for."""

    def values(self, parameters: Sequence[DiskParameter]) -> list[Tensor]:
        """Of several parameters, whole."""

    def rows(self, parameter: DiskParameter, runs: Runs) -> Tensor:
        """Some rows of a parameter along its first axis."""

    def fetched(self, gate: "BlockGate") -> list[Tensor]:
        """Of a block's parameters, which may have been fetched ahead."""


class Gate:
    """A place at which passes wait until what they need is read, for all of them at once."""

    inside = 0
    """Passes that are using what is in place."""

    def open(self, questions: Sequence[Any]) -> list[Any]:
        """What answers the questions of the passes that wait here, in their order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go what is in place."""


class BlockGate(Gate):
    """The entrance of a block: while a pass is inside, the block's modules hold their values."""

    def __init__(self, module: nn.Module, reads: Reads, whole: Callable[[DiskParameter], bool]) -> None:
        self._reads = reads
        self.slots: list[tuple[nn.Module, str, DiskParameter]] = [
            (sub, leaf, parameter)
            for sub in module.modules()
            for leaf, parameter in sub._parameters.items()
            if isinstance(parameter, DiskParameter) and whole(parameter)
        ]
        self.placed = False

    @property
    def parameters(self) -> list[DiskParameter]:
        """The parameters that are put in place."""
        return list({id(parameter): parameter for _, _, parameter in self.slots}.values())

    def open(self, questions: Sequence[Any]) -> list[Any]:
        """Put the values in place; there is nothing to answer."""
        if not self.placed:
            parameters = self.parameters
            values = dict(zip(map(id, parameters), self._reads.fetched(self), strict=True))
            for sub, leaf, parameter in self.slots:
                sub._parameters[leaf] = as_parameter(values[id(parameter)])
            self.placed = True
        return [None] * len(questions)

    def close(self) -> None:
        """Empty the block."""
        for sub, leaf, parameter in self.slots:
            sub._parameters[leaf] = parameter
        self.placed = False


class RowsGate(Gate):
    """An embedding: the rows that all passes look up are read once."""

    def __init__(self, parameter: DiskParameter, reads: Reads) -> None:
        self._parameter, self._reads = parameter, reads

    def open(self, questions: Sequence[Tensor]) -> list[Tensor]:
        """The rows of each pass's token ids."""
        used = torch.unique(torch.cat([ids.flatten() for ids in questions]))
        rows = self._reads.rows(self._parameter, _runs(used.tolist()))
        return [embedding(torch.searchsorted(used, ids.contiguous()), rows) for ids in questions]


class LinearGate(Gate):
    """A linear layer outside of blocks, such as the unembedding: some of its rows at a time, for all passes."""

    def __init__(self, parameter: DiskParameter, reads: Reads) -> None:
        self._parameter, self._reads = parameter, reads

    def open(self, questions: Sequence[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
        """The outputs for each pass's inputs."""
        weight = self._parameter
        count = max(1, SLICE // max(1, weight.nbytes // max(1, len(weight))))
        if count >= len(weight):
            (value,) = self._reads.values([weight])
            return [linear(x, value, bias) for x, bias in questions]
        outputs: list[Tensor] = []
        for begin in range(0, len(weight), count):
            end = min(begin + count, len(weight))
            part = self._reads.rows(weight, [(begin, end)])
            if not outputs:
                outputs = _outputs([x for x, _ in questions], len(weight))
            for out, (x, bias) in zip(outputs, questions, strict=True):
                out[..., begin:end] = linear(x, part, None if bias is None else bias[begin:end])
        return outputs


class PieceGate(Gate):
    """One expert of a mixture whose weights are stacked in one parameter."""

    def __init__(self, parameter: DiskParameter, reads: Reads, index: int) -> None:
        self._parameter, self._reads, self._index = parameter, reads, index

    def open(self, questions: Sequence[Any]) -> list[Tensor]:
        """The expert's matrix, the same for each pass."""
        matrix = self._reads.rows(self._parameter, [(self._index, self._index + 1)])[0]
        return [matrix] * len(questions)


class WholeGate(Gate):
    """A parameter that is used in a way of its own."""

    def __init__(self, parameter: DiskParameter, reads: Reads) -> None:
        self._parameter, self._reads = parameter, reads

    def open(self, questions: Sequence[Any]) -> list[Tensor]:
        """The values, the same for each pass."""
        return self._reads.values([self._parameter]) * len(questions)


def as_parameter(value: Tensor) -> nn.Parameter:
    """A module's parameter with these values."""
    return nn.Parameter(value.detach(), requires_grad=value.requires_grad)


def _runs(rows: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers of rows as runs of neighbours."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1] = found[-1][0], row + 1
        else:
            found.append((row, row + 1))
    return found


def _outputs(inputs: Sequence[Tensor], width: int) -> list[Tensor]:
    """Room for the outputs of a linear layer, in a file where all together are large and on the CPU."""
    total = sum(x.numel() // x.shape[-1] * width * x.element_size() for x in inputs)
    shapes = [(*x.shape[:-1], width) for x in inputs]
    if inputs[0].device.type != "cpu":
        return [x.new_empty(shape) for x, shape in zip(inputs, shapes, strict=True)]
    room = in_file if total > IN_MEMORY else empty
    return [room(shape, x.dtype) for x, shape in zip(inputs, shapes, strict=True)]
