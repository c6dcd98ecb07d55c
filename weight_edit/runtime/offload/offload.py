"""A model on disk: what is read of it, when, and how it is run."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from weight_edit.errors import UnsupportedError
from weight_edit.runtime.offload.conversion import Conversion
from weight_edit.runtime.offload.gates import BlockGate, Gate, LinearGate, PieceGate, RowsGate, WholeGate, as_parameter
from weight_edit.runtime.offload.lockstep import Lockstep
from weight_edit.runtime.offload.parameters import DiskParameter
from weight_edit.runtime.offload.reader import Runs, Shards

T = TypeVar("T")

STACK = 1 << 30
"""Bytes above which a parameter that stacks the matrices of a mixture's experts is read one expert at a time."""

RESIDENT = 1 << 20
"""Bytes up to which a parameter outside of blocks, such as the last norm's gain, stays in memory."""


class Offload:
    """The weights of a model that stay on disk, and the passes that take turns through them.

    A pass outside of `run` reads what it needs for itself alone.

    Attributes:
        device: where passes compute.
        bytes_read: of tensors on disk, since the model was loaded.
        bytes_of_request: of these, by the last call of `run`.
    """

    def __init__(
        self,
        model: Any,
        shards: Shards,
        conversions: Mapping[str, Conversion],
        *,
        device: torch.device,
        blocks: Sequence[str],
        ahead: bool = False,
    ) -> None:
        """Put a `DiskParameter` in the place of each weight, and a gate at the entrance of each block.

        Args:
            model: from `from_pretrained`, its weights on the meta device.
            conversions: parameter -> what makes it.
            device: where the model computes.
            blocks: the modules' names.
            ahead: fetch the next block while one computes, so that two are held.

        Raises:
            UnsupportedError: transformers has changed a weight after loading it, so that it is not what lies on disk.
        """
        self.device = device
        self.bytes_of_request = 0
        self._model, self._shards, self._conversions = model, shards, conversions
        self._dtype: torch.dtype | None = None
        self._ahead: tuple[BlockGate, Future[list[Tensor]]] | None = None
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._gates: dict[Hashable, Gate] = {}
        parameters = self._replace(blocks)
        entered = [name for name in _entered(model, blocks) if self._guard(name)]
        self._sequence = [name for name in blocks if name in self._gates]
        embedding, head = (
            parameters.get(id(module.weight)) if module is not None and hasattr(module, "weight") else None
            for module in (model.get_input_embeddings(), model.get_output_embeddings())
        )
        first = [("rows", embedding)] if embedding else []
        last = [("linear", head)] if head else []
        self._lockstep = Lockstep([*first, *(name for name in blocks if name in entered), *last])

    @property
    def bytes_read(self) -> int:
        """The bytes of tensors that were read since the model was loaded."""
        return self._shards.bytes_read

    def run(
        self,
        steps: Sequence[Callable[[], T]],
        advance: Callable[[float], None] = lambda _: None,
        *,
        serving: int = 0,
    ) -> list[T]:
        """The results of steps that run forward passes of the model, all of which go through a block together.

        Each step runs in a copy of the caller's context, all in this thread and without gradients. At a block the
        steps go on in their order. A step that needs a block again reads it again.

        Args:
            advance: called with shares of the whole, as blocks are passed.
            serving: so many steps, the first ones, run for the others alone, such as that over a common prefix: they
                are ended with the last of these, and their results are left out.
        """
        before, left = self.bytes_read, set(self._sequence)
        share = 1 / max(1, len(left))
        gates = {id(self._gates[name]): name for name in left}

        def passed(gate: Gate) -> None:
            name = gates.get(id(gate))
            if name in left:
                left.discard(name)
                advance(share)

        try:
            # None has ended without a result, but for those that serve.
            return cast(list[T], self._lockstep.run(steps, passed, serving)[serving:])
        finally:
            self._drop_ahead()
            self.bytes_of_request = self.bytes_read - before

    def parameter(self, name: str) -> Tensor:
        """A parameter by its name, read from disk.

        Raises:
            AttributeError: the model has no such parameter.
        """
        parameter = self._model.get_parameter(name)
        value: Tensor = self.values([parameter])[0] if isinstance(parameter, DiskParameter) else parameter
        return value.detach()

    @contextmanager
    def computing(self, dtype: torch.dtype) -> Iterator[None]:
        """Within the context, weights are converted to `dtype` whenever they are read."""
        before, self._dtype = self._dtype, dtype
        try:
            yield
        finally:
            self._dtype = before

    # What gates read.

    def values(self, parameters: Sequence[DiskParameter]) -> list[Tensor]:
        """The values of parameters, changed and in the dtype that is asked for."""
        return [self._given(p, value) for p, value in zip(parameters, self._stored(parameters), strict=True)]

    def rows(self, parameter: DiskParameter, runs: Runs) -> Tensor:
        """Some rows of a parameter along its first axis."""
        return self._given(
            parameter, self._conversions[parameter.key].rows(self._model, self._shards, self.device, runs)
        )

    def fetched(self, gate: BlockGate) -> list[Tensor]:
        """The values of a block's parameters; those of the next one are asked for."""
        ahead, self._ahead = self._ahead, None
        stored = ahead[1].result() if ahead is not None and ahead[0] is gate else self._stored(gate.parameters)
        following = self._next(gate)
        if following is not None and self._pool is not None:
            self._ahead = following, self._pool.submit(self._stored, following.parameters)
        elif following is not None:
            names = {name for p in following.parameters for name in self._conversions[p.key].names}
            self._shards.announce(sorted(names))
        # One by one, so that none is held twice.
        parameters = gate.parameters
        for place, parameter in enumerate(parameters):
            stored[place] = self._given(parameter, stored[place])
        return stored

    # What parameters are asked.

    def looked_up(self, parameter: DiskParameter, ids: Tensor) -> Tensor:
        """The rows of an embedding."""
        return self._ask(("rows", parameter.key), lambda: RowsGate(parameter, self), question=ids)

    def multiplied(self, parameter: DiskParameter, x: Tensor, bias: Tensor | None) -> Tensor:
        """The output of a linear layer."""
        return self._ask(("linear", parameter.key), lambda: LinearGate(parameter, self), question=(x, bias))

    def piece(self, parameter: DiskParameter, index: int) -> Tensor:
        """One of the matrices that a parameter of a mixture stacks."""
        module, _, leaf = parameter.key.rpartition(".")
        leaves = list(self._model.get_submodule(module)._parameters)
        # All matrices of an expert come before those of the next one.
        within = index, leaves.index(leaf) if leaf in leaves else 0
        return self._ask(("pieces", module), lambda: PieceGate(parameter, self, index), within=within)

    def whole(self, parameter: DiskParameter) -> Tensor:
        """All values."""
        return self._ask(("whole", parameter.key), lambda: WholeGate(parameter, self))

    def _ask(
        self, group: Hashable, gate: Callable[[], Gate], *, question: Any = None, within: tuple[int, ...] = ()
    ) -> Tensor:
        _check_no_gradients()
        key = (group, within)
        if key not in self._gates:
            self._gates[key] = gate()
        answer: Tensor = self._lockstep.ask(key, self._gates[key], question)
        return answer

    def _given(self, parameter: DiskParameter, value: Tensor) -> Tensor:
        if self._dtype is not None and value.is_floating_point():
            value = value.to(self._dtype)
        for change in parameter.changes:
            value = change(value)
        # As where it is in memory: torch multiplies in another order with weights that need no gradients.
        return value.detach().requires_grad_(value.is_floating_point())

    def _stored(self, parameters: Sequence[DiskParameter]) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        wanted = {parameter.key for parameter in parameters}
        for name in sorted(wanted):
            if name not in found:
                made = self._conversions[name].make(self._model, self._shards, self.device)
                found |= {key: value for key, value in made.items() if key in wanted}
        return [found[parameter.key] for parameter in parameters]

    def _next(self, gate: BlockGate) -> BlockGate | None:
        names = [name for name in self._sequence if self._gates[name] is gate]
        place = self._sequence.index(names[0]) + 1 if names else len(self._sequence)
        found = self._gates[self._sequence[place]] if place < len(self._sequence) else None
        return found if isinstance(found, BlockGate) else None

    def _drop_ahead(self) -> None:
        if self._ahead is not None and not self._ahead[1].cancel():
            # What it reads is counted; its errors are of a block that nobody asked for.
            self._ahead[1].exception()
        self._ahead = None

    # How it is set up.

    def _replace(self, blocks: Sequence[str]) -> dict[int, str]:
        """Put placeholders in; id of each -> its name."""
        named: dict[int, list[str]] = {}
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            if parameter.is_meta:
                named.setdefault(id(parameter), []).append(name)
        inside = {id(m) for name in _entered(self._model, blocks) for m in self._model.get_submodule(name).modules()}
        placeholders: dict[int, nn.Parameter] = {}
        for module in list(self._model.modules()):
            for leaf, parameter in list(module._parameters.items()):
                if parameter is None or not parameter.is_meta:
                    continue
                if id(parameter) not in placeholders:
                    resident = id(module) not in inside and not isinstance(module, nn.Embedding | nn.Linear)
                    small = parameter.nbytes <= RESIDENT
                    plain = parameter.ndim < 2 and id(module) not in inside
                    placeholders[id(parameter)] = self._placeholder(
                        parameter, named[id(parameter)], resident=small and (resident or plain)
                    )
                module._parameters[leaf] = placeholders[id(parameter)]
        return {id(p): p.key for p in placeholders.values() if isinstance(p, DiskParameter)}

    def _placeholder(self, parameter: nn.Parameter, names: Sequence[str], *, resident: bool) -> nn.Parameter:
        name = next((name for name in names if name in self._conversions), None)
        if name is None or self._conversions[name].targets[name].dtype != parameter.dtype:
            raise UnsupportedError(
                f"{names[0]}: transformers changes this weight after loading it; load the model without `offload`",
                option="offload",
            )
        placeholder = DiskParameter(parameter, name, self)
        return as_parameter(self.values([placeholder])[0]) if resident else placeholder

    def _guard(self, name: str) -> bool:
        """Put a gate at a block's entrance, if it has weights on disk."""
        module = self._model.get_submodule(name)
        gate = BlockGate(module, self, whole=lambda parameter: not is_stack(parameter))
        if not gate.slots:
            return False
        self._gates[name] = gate
        forward = module.forward

        @wraps(forward)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            _check_no_gradients()
            self._lockstep.ask((name, ()), gate)
            gate.inside += 1
            try:
                return forward(*args, **kwargs)
            finally:
                self._lockstep.left(gate)

        # Not a hook: those that callers attach see what they see where the model is in memory, in the same order.
        module.forward = guarded
        return True


def is_stack(parameter: Tensor) -> bool:
    """Whether a parameter stacks so many experts that they are read one by one."""
    return parameter.ndim == 3 and parameter.nbytes > STACK


def _entered(model: nn.Module, blocks: Sequence[str]) -> list[str]:
    """The modules at whose entrance weights are put in place: the blocks, and members of the model's other lists."""
    found = list(blocks)
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(_related(name, other) for other in found):
            continue
        members = [f"{name}.{key}" for key, _ in module.named_children()]
        found += [member for member in members if type(model.get_submodule(member)).forward is not nn.Module.forward]
    return found


def _related(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def _check_no_gradients() -> None:
    if torch.is_grad_enabled():
        raise UnsupportedError(
            "a model on disk computes no gradients; load it without `offload`, or call it under torch.no_grad()",
            option="offload",
        )
