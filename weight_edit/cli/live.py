"""The live view of a run on a terminal: its steps with their state, time and figures, and the bar of what runs now."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from weight_edit.errors import plain
from weight_edit.utils.progress import duration
from weight_edit.utils.progress_events import Event, progress_events

_REFRESHED = 5
"""How often a second it is drawn."""

_BAR = 24
"""Characters of a bar."""

_FIGURES = {
    "refusal": "refusal",
    "over_refusal": "over-refusal",
    "right": "right",
    "layer": "layer",
    "position": "position",
    "kl": "KL",
    "candidates": "candidates",
    "edit_class": "",
    "tensors": "tensors",
    "leak": "left of the direction",
    "before": "separation",
}
"""Figure -> its words, in their order; others are not shown."""

_TO_COME = ("·", ".", "dim")
_MARKS = {
    "begun": ("▶", ">", "bold cyan"),
    "done": ("✓", "+", "green"),
    "kept": ("✓", "=", "dim green"),
    "failed": ("✗", "x", "red"),
}
"""State of a step -> its mark, that where there is only ASCII, and its style."""

_COMPARED = ("refusal", "over_refusal", "right")
"""Figures that the edited model has beside the base's."""

_BESIDE = {"before": "after"}
"""Figure of the base -> that of the edited model, where a step has both."""


@dataclass(kw_only=True)
class _Step:
    name: str
    state: str = "to come"
    began: float = 0.0
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


class RunView:
    """The view of a run, built from its events.

    Args:
        console: of the terminal.
        say: prints a line above the view.
        clock: seconds.
    """

    def __init__(
        self, console: Console, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._say, self._clock = console, say, clock
        self._steps: dict[str, _Step] = {}
        self._task: Event | None = None
        self._entered: str | None = None
        self._began = clock()
        self._ended = False

    def end(self) -> None:
        """Leave out what speaks of now: the view stays on the terminal as it is drawn last."""
        self._ended, self._task = True, None

    def hear(self, event: Event) -> None:
        """Take an event."""
        kind = event["event"]
        if kind == "steps":
            self._steps = {name: _Step(name=name) for name in event["steps"]}
        elif kind == "step":
            self._take(event)
        elif kind == "progress":
            self._task = None if event["done"] else event
        elif kind == "message":
            entered, self._entered = self._entered, None
            # What a step is, which is told when it begins, the view itself says.
            if entered is None or not event["text"].startswith(f"{entered}: "):
                self._say(plain(event["text"]))

    def _take(self, event: Event) -> None:
        step = self._steps.setdefault(event["step"], _Step(name=event["step"]))
        step.state, step.seconds, step.figures = event["state"], event["seconds"], event["figures"]
        step.began, self._task = self._clock(), None
        self._entered = step.name if step.state == "begun" else None

    def __rich__(self) -> Group:
        """The view as it is now, at most as high as the terminal."""
        if not self._steps:
            return Group(*self._bar())
        shown, before, behind = self._window()
        names = max(cell_len(plain(step.name)) for step in shown)
        rows = [self._row(step, names) for step in shown]
        top = [_line((f"  {before} more before", "dim"))] if before else []
        end = [_line((f"  {behind} more to come", "dim"))] if behind else []
        now = [] if self._ended else [_line((f"{duration(self._clock() - self._began)} so far", "dim"))]
        return Group(*top, *rows, *end, *self._bar(), *now)

    def _window(self) -> tuple[list[_Step], int, int]:
        """The steps that there is room for, and how many are left out before and behind them."""
        steps = list(self._steps.values())
        room = max(3, self._console.height - 6)
        if len(steps) <= room:
            return steps, 0, 0
        running = max((n for n, step in enumerate(steps) if step.state != "to come"), default=0)
        first = min(max(0, running - room + 2), len(steps) - room)
        return steps[first : first + room], first, len(steps) - room - first

    def _row(self, step: _Step, names: int) -> Text:
        ascii_only = self._console.options.ascii_only
        mark, ascii_mark, style = _MARKS.get(step.state, _TO_COME)
        if step.state == "begun":
            took = duration(self._clock() - step.began)
        elif step.state == "kept":
            took = "kept"
        else:
            took = "" if step.seconds is None else duration(step.seconds)
        name = plain(step.name)
        return _line(
            (ascii_mark if ascii_only else mark, style),
            (f" {name}{' ' * (names - cell_len(name))}", "" if step.state in ("done", "kept") else style),
            (f"  {took:>9}", "dim"),
            (f"  {self._figures(step)}", ""),
        )

    def _figures(self, step: _Step) -> str:
        base = self._steps.get("baseline")
        compared = base is not None and step.name == "evaluate"
        arrow = "->" if self._console.options.ascii_only else "→"
        words = []
        for name, said in _FIGURES.items():
            value = step.figures.get(name)
            if value is None:
                continue
            text = _shown(value)
            after = step.figures.get(_BESIDE.get(name, ""))
            if after is not None:
                text = f"{text} {arrow} {_shown(after)}"
            if compared and name in _COMPARED and base is not None and name in base.figures:
                text = f"{_shown(base.figures[name])} {arrow} {text}"
            words.append(f"{said} {text}".strip())
        return "  ".join(words)

    def _bar(self) -> list[Text]:
        """The task that runs now, with a bar where it is known how much there is, and room."""
        task = self._task
        if task is None:
            return []
        bar: list[tuple[str, str]] = []
        if task["total"] and self._console.width > 3 * _BAR:
            done = min(_BAR, int(_BAR * task["count"] / task["total"]))
            full, empty = ("#", "-") if self._console.options.ascii_only else ("━", "━")
            bar = [(full * done, "cyan"), (f"{empty * (_BAR - done)} ", "bright_black")]
        return [_line((f"  {plain(task['task'])} ", ""), *bar, (plain(task["text"]), ""))]


def _line(*parts: tuple[str, str]) -> Text:
    """One line of texts with styles, cut off where the terminal ends."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _shown(value: float | str) -> str:
    """A rate with three digits, a small figure with two, a whole number as it is."""
    if isinstance(value, str | int):
        return plain(str(value))
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


@contextmanager
def live_view(console: Console) -> Iterator[None]:
    """Within the context, a run is shown on a terminal as it goes; what is printed meanwhile stands above."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    view = RunView(console, say)
    live = _Resized(console=console, get_renderable=view.__rich__, refresh_per_second=_REFRESHED)
    with live, progress_events(view.hear, every=1 / _REFRESHED):
        try:
            yield
        finally:
            view.end()


class _Resized(Live):
    """A live display that finds its first line again where a narrower terminal has broken its lines.

    How many rows it drew rich keeps in an attribute of its own: a release without it draws as rich does.
    """

    _lines: tuple[int, ...] = ()
    _width = 0

    def refresh(self) -> None:
        """Draw it anew."""
        width = self.console.width
        drawn = getattr(self, "_live_render", None)
        if drawn is not None and width != self._width and self._lines and getattr(drawn, "_shape", None) is not None:
            drawn._shape = (width, sum(max(1, -(-line // width)) for line in self._lines))
        self._width = width
        lines = self.console.render_lines(self.get_renderable(), pad=False)
        self._lines = tuple(cell_len("".join(part.text for part in line).rstrip()) for line in lines)
        super().refresh()
