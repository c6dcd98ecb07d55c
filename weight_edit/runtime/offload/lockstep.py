"""Forward passes that take turns, so that all go through a block before the next one is read.

Each pass is the model's own, run in a greenlet: a function that can be left in the middle and gone on with. It is left
wherever it needs weights; once all have come to some such place, the weights of the earliest are read, and those that
wait for them go on, in their order, until they need others.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

import torch
from greenlet import GreenletExit, getcurrent, greenlet

from weight_edit.runtime.offload.buffers import trim
from weight_edit.runtime.offload.gates import Gate

T = TypeVar("T")
Place = tuple[Hashable, tuple[int, ...]]
"""A group of gates that a pass goes through one after the other, and a gate's place in it."""


class Ended(GreenletExit):
    """Unwinds a pass because another one failed; not an Exception, so that no model's code catches it."""


class Worker(greenlet):
    """One step of a request, which waits where it needs weights."""

    def __init__(self, step: Callable[[], Any], lockstep: "Lockstep") -> None:
        super().__init__(step)
        # What the step sets is seen by it alone.
        self.gr_context = copy_context()
        self.lockstep = lockstep
        self.at: Place | None = None
        self.before: Hashable = None
        self.gate: Gate | None = None
        self.question: Any = None
        self.ended = False

    def wait(self, place: Place, gate: Gate, question: Any) -> Any:
        """Leave the pass until the gate is opened; what it answers."""
        if self.ended:
            raise Ended
        self.before, self.at = (self.at[0] if self.at else None), place
        self.gate, self.question = gate, question
        assert self.parent is not None
        answer = self.parent.switch()
        self.gate = self.question = None
        return answer


class Lockstep:
    """The gates of one model and the passes that wait at them."""

    def __init__(self, order: Sequence[Hashable]) -> None:
        """Without passes.

        Args:
            order: groups of gates as a pass comes to them, as far as that is known; others are put where they are seen.
        """
        self._order = list(order)
        self._open: list[Gate] = []

    def ask(self, place: Place, gate: Gate, question: Any = None) -> Any:
        """What a gate answers to the pass that is running; it waits for the others, if there are any."""
        worker = getcurrent()
        if isinstance(worker, Worker) and worker.lockstep is self:
            return worker.wait(place, gate, question)
        return self._answers(gate, [question])[0]

    def run(self, steps: Sequence[Callable[[], T]], passed: Callable[[Gate], None], serving: int = 0) -> list[T | None]:
        """The results of the steps, which take turns; the error of one ends all.

        Args:
            passed: told of each gate that all who waited at it have passed.
            serving: so many steps, the first ones, run for the others alone: they are ended with the last of these,
                and have no result where they had not come to their end.
        """
        if isinstance(getcurrent(), Worker):
            # Within a step there is nobody to take turns with.
            return [step() for step in steps]
        workers = [Worker(step, self) for step in steps]
        results: dict[int, T] = {}
        try:
            with torch.no_grad():
                for number, worker in enumerate(workers):
                    self._resume(number, worker, results, None)
                while any(not worker.dead for worker in workers[serving:]):
                    place = min((w.at for w in workers if w.gate is not None and w.at is not None), key=self._rank)
                    here = [(n, w) for n, w in enumerate(workers) if w.gate is not None and w.at == place]
                    gate = here[0][1].gate
                    assert gate is not None
                    answers = self._answers(gate, [worker.question for _, worker in here])
                    for position, (number, worker) in enumerate(here):
                        answer, answers[position] = answers[position], None
                        self._resume(number, worker, results, answer)
                        del answer
                    passed(gate)
        finally:
            _end(workers)
            self.close()
        return [results.get(number) for number in range(len(workers))]

    def left(self, gate: Gate) -> None:
        """Say that a pass has come out of a gate's block."""
        gate.inside -= 1
        if not isinstance(getcurrent(), Worker):
            self.close()

    def close(self) -> None:
        """Empty the gates that are open and that nobody is inside of."""
        for gate in [gate for gate in self._open if not gate.inside]:
            gate.close()
            self._open.remove(gate)

    def _answers(self, gate: Gate, questions: list[Any]) -> list[Any]:
        if gate not in self._open:
            self.close()
            trim()
            self._open.append(gate)
        return gate.open(questions)

    def _resume(self, number: int, worker: Worker, results: dict[int, T], answer: Any) -> None:
        outcome = worker.switch(answer) if worker else worker.switch()
        if worker.dead:
            results[number] = outcome
        elif worker.at is not None:
            self._note(worker.at[0], worker.before)

    def _note(self, group: Hashable, before: Hashable) -> None:
        """Put a gate that is seen for the first time behind the one that its pass came from."""
        if group not in self._order:
            self._order.insert(self._order.index(before) + 1 if before in self._order else 0, group)

    def _rank(self, place: Place) -> tuple[int, tuple[int, ...]]:
        return self._order.index(place[0]), place[1]


def _end(workers: Sequence[Worker]) -> None:
    """Unwind the passes that were left in the middle, because one of them failed or the user broke off."""
    for worker in workers:
        worker.ended = True
        while worker:
            # Whatever comes out of the others now would hide the error that ended them.
            with suppress(BaseException):
                worker.throw(Ended)
