"""The log of a job: events as JSON, and lines of other libraries between them."""

import json

from weight_edit.ui.job_log import LoggedStep, parse_log


def line(**event: object) -> str:
    return json.dumps({"time": "2026-01-01T00:00:00Z", **event})


def test_events_are_read_and_other_lines_shown() -> None:
    log = parse_log(
        [
            "a warning of a library",
            line(event="message", text="loading"),
            line(event="step", step="baseline", state="begun", seconds=None, figures={}),
            line(event="progress", task="answers", count=3, total=12, unit="", rate=1.0, left=9.0),
            line(event="step", step="baseline", state="done", seconds=4.0, figures={"refusal": 0.9}),
            line(event="progress", task="scores", count=5, total=10, unit="", rate=None, left=65.0),
        ]
    )
    assert log.progress is not None
    assert (log.progress.share, str(log.progress)) == (0.5, "scores, 50%, about 65 s left")
    assert log.steps == (LoggedStep(name="baseline", state="done", seconds=4.0, figures={"refusal": 0.9}),)
    assert log.lines[:2] == ("a warning of a library", "loading")
    assert log.error is None


def test_steps_to_come_and_the_front_so_far_are_known() -> None:
    points = [{"refusal": 0.5, "damage": 1e-3}, {"refusal": "x"}, 3]
    log = parse_log(
        [
            line(event="steps", steps=["baseline", "bake"]),
            line(event="step", step="baseline", state="done", seconds=1.0, figures={}),
            line(event="front", judged=False, points=points),
        ]
    )
    assert [(step.name, step.state) for step in log.steps] == [("baseline", "done"), ("bake", "to come")]
    assert log.front == ((0.5, 1e-3),)
    assert not log.front_judged
    assert parse_log([line(event="front", judged=True, points=points)]).front_judged
    assert len(log.lines) == 1
    assert parse_log([line(event="front", points=3), line(event="steps", steps=None)]).front == ()


def test_an_error_is_kept() -> None:
    log = parse_log([line(event="error", message="--target: no such file", exit_code=2)])
    assert log.error == log.lines[-1] == "--target: no such file"


def test_whatever_stands_there_is_a_line() -> None:
    hostile = [
        '{"event": 3}',
        '{"event": "progress"}',
        "{",
        "[" * 5000,
        '{"event":"step","figures":[]}',
        "\x1b]0;x\x07",
    ]
    log = parse_log(hostile)
    assert log.progress is not None
    assert log.progress.share is None
    assert all(shown.isprintable() for shown in log.lines)
    assert log.steps[0].figures == {}


def test_a_long_log_is_cut_to_its_end() -> None:
    log = parse_log(str(number) for number in range(5000))
    assert log.lines[-1] == "4999"
    assert len(log.lines) == 200


def test_a_count_beyond_its_total_is_all_of_it() -> None:
    over = parse_log([line(event="progress", task="t", count=12, total=10)]).progress
    none = parse_log([line(event="progress", task="t", count=True, total=0)]).progress
    assert over is not None
    assert none is not None
    assert (over.share, none.share) == (1.0, None)
