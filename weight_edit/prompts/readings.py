"""Summaries of the prompt sets that were read, for the user."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from weight_edit.prompts.sets import PromptSet

_SHOWN = 100
_read: ContextVar[tuple[list["Reading"], Callable[["Reading"], None]] | None] = ContextVar("readings", default=None)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The summary of one prompt set: columns, count, and for who looks on the first prompt.

    Attributes:
        name: of the set, as the user wrote it.
        columns: where "prompts", and "answers" and "categories" where there are any, were taken from.
        count: prompts in the set.
        empty, duplicate: how many entries were left out as such.
        first: the first prompt, cut to a line.
        source: of a public set, see `PromptSet`.
    """

    name: str
    columns: dict[str, str]
    count: int
    empty: int
    duplicate: int
    first: str
    source: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, prompts: PromptSet) -> "Reading":
        """The summary of one set."""
        text = "".join(c if c.isprintable() else " " for c in prompts.prompts[0])
        first = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
        dropped = prompts.dropped
        return cls(
            name=prompts.name,
            columns=dict(prompts.columns),
            count=len(prompts),
            empty=dropped["empty"],
            duplicate=dropped["duplicate"],
            first=first,
            source=dict(prompts.source),
        )

    @property
    def line(self) -> str:
        """The summary on one line, which has no prompt in it and may go into a log."""
        others = [f"{what} from '{name}'" for what, name in self.columns.items() if what != "prompts"]
        column = self.columns.get("prompts")
        left = [f"{n} {what}" for n, what in ((self.empty, "empty"), (self.duplicate, "repeated")) if n]
        said = [
            f"{self.count} prompts" + (f" from column '{column}'" if column else "") + self._origin,
            *others,
            *([f"{' and '.join(left)} left out"] if left else []),
        ]
        return f"{self.name}: {', '.join(said)}"

    @property
    def line_with_first(self) -> str:
        """The same with the first prompt, by which one sees whether the column is the right one."""
        return f"{self.line}; the first: {json.dumps(self.first, ensure_ascii=False)}"

    @property
    def _origin(self) -> str:
        if not self.source:
            return ""
        at = f" at {self.source['revision'][:12]}" if "revision" in self.source else ""
        return f" of {self.source['dataset']}{at} (licence: {self.source.get('licence', 'not stated')})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "columns": self.columns,
            "count": self.count,
            "dropped": {"empty": self.empty, "duplicate": self.duplicate},
            "first": self.first,
            **({"source": self.source} if self.source else {}),
        }


@contextmanager
def readings(say: Callable[[str], None], *, show_first: bool = False) -> Iterator[list[Reading]]:
    """Collect the summaries of sets read within the block, each once.

    Args:
        say: takes a line for each, as it is read.
        show_first: with the first prompt, which may be a harmful one; not for logs.
    """
    found: list[Reading] = []

    def told(reading: Reading) -> None:
        say(reading.line_with_first if show_first else reading.line)

    token = _read.set((found, told))
    try:
        yield found
    finally:
        _read.reset(token)


def note_reading(prompts: PromptSet) -> None:
    """Add a set to the collected summaries, once."""
    collected = _read.get()
    if collected is None:
        return
    found, say = collected
    reading = Reading.of(prompts)
    if reading not in found:
        found.append(reading)
        say(reading)
