"""The plain model's stream, kept at the inputs of blocks, from which an edit that begins later goes on.

A difference that is added at the input of block 20 leaves blocks 0 to 19 as they are: with their result at hand, a pass
runs blocks 20 and up alone. That is only sound where a block hands nothing on but the stream; whether it is so is found
out by resuming the plain model, which must give what it gave before, to the bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.hooks import Hook, hooked, main_input
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import free_memory

_SHARE = 0.125
"""The part of the free memory that the kept streams may take."""


class Trunk:
    """What the plain model makes of some prompts in front of its blocks.

    It is of one state of the model: under other hooks that enclose the questions, or after another change of weights,
    make another.

    Args:
        model: the model.
        sequences: token ids of the prompts.
        blocks: at whose inputs the stream is kept: where edits begin.
    """

    def __init__(self, model: Model, sequences: Sequence[Sequence[int]], blocks: Sequence[int]) -> None:
        self.sequences = [list(sequence) for sequence in sequences]
        self.blocks = sorted({block for block in blocks if block > 0})
        tokens = sum(map(len, self.sequences))
        free = free_memory(model)
        needed = tokens * model.anatomy.d_model * model.dtype.itemsize * len(self.blocks)
        fits = free is not None and needed <= _SHARE * free
        self.suited: bool | None = None if fits and self.blocks else False
        """Whether passes can be resumed; None as long as it was not tried."""
        self.tried_on: tuple[int, ...] = ()
        """The prompts whose stream behind the last block is kept too, to find that out."""
        self._model = model
        self._streams: dict[int, dict[int, Tensor]] = {block: {} for block in self.blocks}
        self._prefix: dict[int, Tensor] = {}
        self._sizes: dict[int, int] = {}
        self._end: Tensor | None = None

    @contextmanager
    def recording(self, prompts: Sequence[int] | None) -> Iterator[None]:
        """Within the context, a plain pass leaves its streams here.

        Args:
            prompts: those of the batch's rows; None where it reads the common prefix.
        """
        kept: dict[int, Tensor] = {}
        ends: list[Tensor] = []

        def keeping(block: int) -> Callable[[Tensor], Tensor]:
            def keep(x: Tensor) -> Tensor:
                kept[block] = x.detach().clone()
                return x

            return keep

        def end(x: Tensor) -> Tensor:
            ends.append(x.detach().clone())
            return x

        places = [block.module for block in self._model.anatomy.blocks]
        hooks = [Hook(places[block], "input", keeping(block)) for block in self.blocks]
        first = prompts is not None and self._end is None
        if first:
            hooks.append(Hook(places[-1], "output", end))
        with hooked(self._model.model, hooks), self._forms():
            yield
        if prompts is None:
            self._prefix = kept
            return
        for block, x in kept.items():
            self._streams[block] |= dict(zip(prompts, x, strict=True))
        if first and ends:
            self.tried_on, self._end = tuple(prompts), ends[0]

    def last_before(self, block: int) -> int:
        """The last block, up to this one, at whose input streams are kept; 0 where there is none."""
        return max((each for each in self.blocks if each <= block), default=0)

    def has(self, block: int, prompts: Sequence[int], columns: int, prefix: int) -> bool:
        """Whether a batch that reads so many tokens of these prompts, behind a prefix, can go on from a block."""
        known = self._streams.get(block, {})
        width = self._prefix[block].shape[1] if block in self._prefix else 0
        return width == prefix and all(prompt in known and len(known[prompt]) >= columns for prompt in prompts)

    @contextmanager
    def resumed(self, block: int, prompts: Sequence[int] | None, batch: Batch) -> Iterator[None]:
        """Within the context, a pass begins at a block; the ones before hand on whatever they get.

        Args:
            prompts: those of the batch's rows; None where it reads the common prefix.
        """
        columns = batch.ids.shape[1]
        if prompts is None:
            stream = self._prefix[block].expand(len(batch.rows), *self._prefix[block].shape[1:])
        else:
            stream = torch.stack([self._streams[block][prompt][-columns:] for prompt in prompts])
        place = self._model.anatomy.blocks[block].module
        with ExitStack() as attached:
            for number in range(block):
                attached.enter_context(self._skipped(number))
            attached.enter_context(hooked(self._model.model, [Hook(place, "input", lambda x: stream.to(x.device))]))
            yield

    def agrees(self, block: int, run: Callable[[], object]) -> bool:
        """Whether `run`, which resumes the plain model at a block, ends in the stream that was kept."""
        ends: list[Tensor] = []

        def end(x: Tensor) -> Tensor:
            ends.append(x)
            return x

        with hooked(self._model.model, [Hook(self._model.anatomy.blocks[-1].module, "output", end)]):
            try:
                run()
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, UsageError, ValueError):
                # A block that needs more than the stream of those before may fail in any way, and memory may run out.
                return False
        # The last of them: a common prefix has a pass of its own before.
        return self._end is not None and bool(ends) and torch.equal(ends[-1], self._end)

    @contextmanager
    def _forms(self) -> Iterator[None]:
        """Within the context, it is noted whether blocks return the stream alone or at the head of a tuple."""

        def note(number: int) -> Callable[[nn.Module, Any, Any], None]:
            def noted(_: nn.Module, __: Any, output: Any) -> None:
                self._sizes[number] = len(output) if isinstance(output, tuple) else 0

            return noted

        with ExitStack() as attached:
            for number, block in enumerate(self._model.anatomy.blocks):
                module = self._model.model.get_submodule(block.module)
                attached.callback(module.register_forward_hook(note(number)).remove)
            yield

    @contextmanager
    def _skipped(self, number: int) -> Iterator[None]:
        """Within the context, a block hands on what it gets."""
        name = self._model.anatomy.blocks[number].module
        module = self._model.model.get_submodule(name)
        own = vars(module).get("forward")

        def forward(*args: Any, **kwargs: Any) -> Any:
            x = main_input(name, args, kwargs)[1]
            # What else it returned, such as attention weights, is not handed on; `agrees` finds out if it should be.
            return (x, *[None] * (self._sizes[number] - 1)) if self._sizes[number] else x

        vars(module)["forward"] = forward
        try:
            yield
        finally:
            del vars(module)["forward"]
            if own is not None:
                vars(module)["forward"] = own
