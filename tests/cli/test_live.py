"""The live view of a run: what is drawn of its events, at any size of the terminal, and only on one."""

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from weight_edit.cli.live import RunView, live_view
from weight_edit.utils.progress_events import emit, emit_step, emit_steps, event_of


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(
    events: list[dict], *, width: int = 80, height: int = 24, ascii_only: bool = False
) -> tuple[list[str], list[str]]:
    """The view after some events, and the lines above it."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if ascii_only else "utf-8")
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    above: list[str] = []
    clock = Clock()
    view = RunView(console, above.append, clock)
    for event in events:
        view.hear(event)
        clock.now += 1
    lines = console.render_lines(view.__rich__(), pad=False)
    return ["".join(part.text for part in line).rstrip() for line in lines], above


def steps(*names: str) -> dict:
    return event_of("steps", steps=list(names))


def step(name: str, state: str, seconds: float | None = None, **figures: object) -> dict:
    return event_of("step", step=name, state=state, seconds=seconds, figures=figures)


RUN = [
    steps("baseline", "find", "bake", "evaluate"),
    step("baseline", "done", 11.65, refusal=1.0, over_refusal=0.98, right=0.9815),
    step("find", "begun"),
    event_of("message", text="find: looking for the direction that carries the behaviour"),
    event_of("message", text="a set \x1b[2Jwas read"),
    event_of("message", text="find: the first prompts are left out"),
    step("find", "kept", 6.7, method="mean-difference", layer=3, position=-1),
    step("bake", "begun"),
    event_of("progress", task="bake", count=5, total=10, unit="", rate=1, left=5, text="5 of 10, 1 s each", done=False),
]


def test_steps_have_their_state_time_and_figures() -> None:
    lines, above = drawn(RUN)
    assert lines == [
        "✓ baseline       12 s  refusal 1.000  over-refusal 0.980  right 0.982",
        "✓ find           kept  layer 3  position -1",
        "▶ bake          2.0 s",
        "· evaluate",
        f"  bake {'━' * 24} 5 of 10, 1 s each",
        "9.0 s so far",
    ]
    # No control character of a message reaches the terminal, and what a step is, is not said twice.
    assert above == ["a set \\x1b[2Jwas read", "find: the first prompts are left out"]


def test_the_edited_model_has_its_figures_beside_the_bases() -> None:
    lines, _ = drawn([*RUN, step("evaluate", "done", 13.0, refusal=0.0, right=0.9769, kl=0.0067)])
    assert lines[3] == "✓ evaluate       13 s  refusal 1.000 → 0.000  right 0.982 → 0.977  KL 0.007"


def test_what_a_step_has_of_both_models_stands_beside_one_another() -> None:
    events = [steps("geometry"), step("geometry", "done", 1.0, layer=3, before=0.997, after=0.488)]
    assert drawn(events)[0][0] == "✓ geometry      1.0 s  layer 3  separation 0.997 → 0.488"
    assert drawn(events, ascii_only=True)[0][0].endswith("separation 0.997 -> 0.488")


def test_what_stays_on_the_terminal_speaks_of_nothing_that_goes_on() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, color_system=None)
    with live_view(console):
        for event in RUN:
            emit(event["event"], **{name: value for name, value in event.items() if name not in ("event", "time")})
    last = file.getvalue().rpartition("bake ")[2]
    assert "evaluate" in last
    assert "so far" not in last
    assert "5 of 10" not in last


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines, _ = drawn(RUN, width=width)
    assert len(lines) == 6
    assert max(map(len, lines)) <= width


def test_a_terminal_without_unicode() -> None:
    lines, _ = drawn([*RUN, step("evaluate", "done", 1.0, refusal=0.5)], ascii_only=True)
    assert "\n".join(lines).isascii()
    assert "1.000 -> 0.500" in lines[3]


@pytest.mark.parametrize("running", [0, 20, 39])
def test_of_many_steps_those_around_the_running_one_are_shown(running: int) -> None:
    names = [f"find {n:02}" for n in range(40)]
    past = [step(name, "done", 1.0) for name in names[:running]]
    lines, _ = drawn([steps(*names), *past, step(names[running], "begun")], height=12)
    assert len(lines) <= 12
    (mine,) = (number for number, line in enumerate(lines) if line.startswith("▶"))
    assert names[running] in lines[mine]
    shown = sum("find" in line for line in lines)
    hidden = [int(line.split()[0]) for line in lines if " more " in line]
    assert shown + sum(hidden) == 40


def test_the_terminal_is_as_it_was_after_an_interruption() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, color_system=None)

    def work() -> None:
        emit_steps(["baseline"])
        emit_step("baseline", "begun")
        emit("message", text="between")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), live_view(console):
        work()
    sent = file.getvalue()
    assert "between" in sent
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")
    assert sent.rstrip("\x1b[?25h").endswith("\n")


PROGRAM = """
import sys
from weight_edit.cli.call import call
from weight_edit.utils.progress_events import emit_step, emit_steps

def work():
    emit_steps(["baseline"])
    emit_step("baseline", "done", seconds=1.0, figures={"refusal": 0.25})

call(work, lambda result, console: print("the table"), lambda result: {}, as_json=False, quiet=%r, live=True)
"""


@pytest.mark.parametrize(
    ("terminal", "quiet", "seen"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_it_is_drawn_on_a_terminal_alone(terminal: bool, quiet: bool, seen: bool) -> None:
    ours, theirs = pty.openpty()
    there = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-c", PROGRAM % quiet]
    done = subprocess.run(
        command, stderr=theirs if terminal else subprocess.PIPE, stdout=subprocess.PIPE, env=there, check=True
    )
    os.set_blocking(ours, False)
    try:
        sent = os.read(ours, 100_000).decode()
    except BlockingIOError:
        sent = ""
    finally:
        os.close(theirs)
        os.close(ours)
    assert ("refusal 0.250" in sent) == bool(sent) == seen
    assert done.stdout == b"the table\n"
    assert not done.stderr
