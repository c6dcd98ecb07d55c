"""Steps that take turns: their order, their errors, and steps that end early or go other ways."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
import torch

from weight_edit.runtime.offload.gates import Gate
from weight_edit.runtime.offload.lockstep import Lockstep, Worker


class Counting(Gate):
    """A gate that answers its own name and counts how often it was opened, and for how many."""

    def __init__(self, name: str) -> None:
        self.name, self.opened = name, []  # type: ignore[var-annotated]

    def open(self, questions: Sequence[Any]) -> list[Any]:
        self.opened.append(list(questions))
        return [self.name] * len(questions)


class Course:
    """Gates in a row, and steps through them that write down where they were."""

    def __init__(self, names: str = "abcd", known: str = "abcd") -> None:
        self.lockstep = Lockstep(list(known))
        self.gates = {name: Counting(name) for name in names}
        self.log: list[tuple[int, str]] = []

    def step(self, number: int, way: str, then: Callable[[], Any] = lambda: None) -> Callable[[], Any]:
        def run() -> Any:
            for name in way:
                assert self.lockstep.ask((name, ()), self.gates[name], number) == name
                self.log.append((number, name))
            then()
            return number, way

        return run

    def run(self, *steps: Callable[[], Any]) -> list[Any]:
        return self.lockstep.run(steps, lambda _: None)

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(gate.opened) for name, gate in self.gates.items()}


def test_all_pass_a_gate_in_their_order_before_the_next_is_opened() -> None:
    course = Course()
    assert course.run(*(course.step(n, "abcd") for n in range(3))) == [(n, "abcd") for n in range(3)]
    assert course.log == [(n, name) for name in "abcd" for n in range(3)]
    assert course.gates["c"].opened == [[0, 1, 2]]


def test_a_step_that_ends_early_or_leaves_gates_out_costs_the_others_nothing() -> None:
    course = Course()
    assert course.run(course.step(0, "ab"), course.step(1, "abcd"), course.step(2, "cd"), course.step(3, "")) == [
        (0, "ab"),
        (1, "abcd"),
        (2, "cd"),
        (3, ""),
    ]
    assert course.counts == dict.fromkeys("abcd", 1)
    assert course.gates["c"].opened == [[1, 2]]


def test_a_second_pass_is_a_second_round_for_all() -> None:
    course = Course()
    course.run(*(course.step(n, "abcdabcd") for n in range(3)))
    assert course.counts == dict.fromkeys("abcd", 2)


def test_gates_that_nobody_knew_of_are_found_on_the_way() -> None:
    course = Course(names="axbyc", known="abc")
    course.run(*(course.step(n, "axbyc") for n in range(2)))
    course.run(course.step(0, "axbyc"), course.step(1, "xbc"), course.step(2, "yc"))
    assert course.counts == dict.fromkeys("axbyc", 2)


def test_an_error_in_one_step_ends_all() -> None:
    course, ended = Course(), []

    def fail() -> None:
        raise ValueError("of step 1")

    def tidy(number: int) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return course.step(number, "abcd")()
            finally:
                ended.append(number)

        return run

    with pytest.raises(ValueError, match="of step 1"):
        course.run(tidy(0), course.step(1, "ab", fail), tidy(2))
    assert ended == [0, 2]
    assert course.counts == {"a": 1, "b": 1, "c": 0, "d": 0}
    # The next request begins anew.
    assert course.run(course.step(5, "abcd")) == [(5, "abcd")]


def test_a_step_that_catches_everything_is_ended_all_the_same() -> None:
    course = Course()

    def stubborn() -> Any:
        for _ in range(3):
            with suppress(BaseException):
                course.step(0, "abcd")()
        return "went on"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        course.run(stubborn, course.step(1, "ab", interrupt))
    assert course.counts["c"] == 0


def test_an_error_while_a_gate_is_opened_ends_all() -> None:
    course = Course()
    course.gates["b"].open = lambda _: (_ for _ in ()).throw(OSError("the disk is gone"))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the disk is gone"):
        course.run(course.step(0, "abc"), course.step(1, "abc"))
    assert [name for _, name in course.log] == ["a", "a"]


def test_each_step_has_its_own_context_and_none_has_gradients() -> None:
    course, variable = Course(), ContextVar("variable", default=-1)
    seen = []

    def step(number: int) -> Callable[[], Any]:
        def run() -> None:
            assert variable.get() == -1
            variable.set(number)
            course.step(number, "ab")()
            seen.append((variable.get(), torch.is_grad_enabled()))

        return run

    course.run(*(step(n) for n in range(3)))
    assert seen == [(0, False), (1, False), (2, False)]
    assert variable.get() == -1
    assert torch.is_grad_enabled()


def test_a_request_within_a_step_is_run_by_it_alone() -> None:
    course = Course()
    assert course.run(lambda: course.run(course.step(0, "ab"), course.step(1, "ab")), course.step(2, "ab")) == [
        [(0, "ab"), (1, "ab")],
        (2, "ab"),
    ]


def test_outside_of_a_request_a_gate_opens_at_once() -> None:
    course = Course()
    assert course.step(7, "ab")() == (7, "ab")
    assert course.gates["a"].opened == [[7]]


def test_a_step_that_serves_the_others_ends_with_them() -> None:
    course = Course()
    steps = [course.step(0, "abcd"), course.step(1, "ab"), course.step(2, "abc")]
    assert course.lockstep.run(steps, lambda _: None, serving=1) == [None, (1, "ab"), (2, "abc")]
    assert course.counts == {"a": 1, "b": 1, "c": 1, "d": 0}
    assert course.log[::3] == [(0, "a"), (0, "b"), (0, "c")]


def test_no_step_is_left_in_the_middle() -> None:
    course, workers = Course(), []

    def note() -> None:
        from greenlet import getcurrent

        workers.append(getcurrent())

    def fail() -> None:
        raise ValueError

    def noted(step: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (note(), step())

    with pytest.raises(ValueError):
        course.run(noted(course.step(0, "abcd")), noted(course.step(1, "abc", fail)), noted(course.step(2, "abcd")))
    assert len(workers) == 3
    assert all(isinstance(worker, Worker) and worker.dead for worker in workers)
