"""A search shows a bar for each step and the front as it grows, in lines that a log can hold."""

from collections.abc import Iterator

import pytest

from weight_edit.search.front import FrontPoint
from weight_edit.search.progress import Progress
from weight_edit.search.progress_shown import EVERY, front_in_words, shown
from weight_edit.utils.progress import quieted


def progress(step: str, done: int, total: int, front: list[tuple[float, float]], **changes: object) -> Progress:
    points = [FrontPoint(digest=f"{n:012d}", refusal=r, damage=d) for n, (r, d) in enumerate(front)]
    said = {"candidates": 20, "trials": (0, 0), "judged": False, "seconds": 1.0, "seconds_per_trial": 0.5}
    return Progress(**{"step": step, "done": done, "total": total, "front": points, **said, **changes})  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Iterator[list[float]]:
    with quieted(False):
        yield [0.0]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_each_step_begins_with_a_line_and_the_front_so_far(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with shown(lambda: clock[0]) as told:
        told(progress("preparation", 0, 1, []))
        assert lines(capsys) == [], "what comes first has bars of its own"
        told(progress("published settings", 0, 3, [], trials=(0, 32)))
        told(progress("sampler 1", 0, 4, [(1.0, 0.0), (0.5, 0.00123)], trials=(0, 32)))
        told(progress("sampler 2", 0, 4, [(1.0, 0.0), (0.5, 0.00123)], trials=(16, 32)))
        told(progress("descents", 0, 2, [(1.0, 0.0), (0.5, 0.00123)], trials=(32, 32)))
        told(progress("judging", 0, 8, [(1.0, 0.0), (0.25, 0.002)], judged=True, trials=(32, 32)))
    said = lines(capsys)
    assert said[0] == "published settings: 0 of 3"
    assert said[1] == (
        "front, cheap score of refusal (no rate) at KL in nats per token: 1.00 at 0, 0.50 at 0.0012; 20 scored, "
        "0.5 s a trial"
    )
    assert said[2] == "trials of the sampler: 0 of 32", "all generations are one bar"
    assert said[3].startswith("front, judged refusal at KL in nats per token: 1.00 at 0, 0.25 at 0.002")
    assert said[4] == "judging: 0 of 8"
    assert len(said) == 5


def test_within_a_step_the_front_is_said_again_where_it_has_changed(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    fronts = [(EVERY / 2, [(0.4, 0.1)]), (EVERY, [(0.3, 0.1)]), (EVERY * 3, [(0.3, 0.1)]), (EVERY * 4, [(0.2, 0.1)])]
    with shown(lambda: clock[0]) as told:
        told(progress("finalists", 0, 8, []))
        for number, (at, front) in enumerate(fronts, 1):
            clock[0] = at
            told(progress("finalists", number, 8, front))
    assert [line.split(":")[1].split(";")[0] for line in lines(capsys) if line.startswith("front")] == [
        " 0.30 at 0.1",
        " 0.20 at 0.1",
    ]


def test_of_a_long_front_a_few_points_are_said_with_both_ends() -> None:
    front = [FrontPoint(digest=f"{n:012d}", refusal=1 - n / 40, damage=n / 100) for n in range(31)]
    said = front_in_words(front, judged=True)
    assert said.count(" at ") == 1 + 6
    assert "1.00 at 0," in said
    assert said.endswith("0.25 at 0.3 (of 31)")


def test_without_progress_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with quieted(True), shown() as told:
        told(progress("judging", 0, 8, [(0.5, 0.1)]))
    assert lines(capsys) == []
