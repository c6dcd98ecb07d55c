"""The pieces of a page: a picture with its table, a table, a section."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        columns: their headings.
        rows: the cells; each row begins with its name.
        caption: one line above it; may be empty.
        words: whether its cells are words, which begin at the left.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of the page.

    Attributes:
        name: of its files; letters, digits and hyphens.
        title: what it shows.
        reading: one line on what to read from it.
        alt: what it looks like, for those who do not see it.
        spec: a Vega-Lite specification without width; colours are those of `theme`.
        table: the numbers that are drawn.
        narrow: the specification on a phone; None where the other one serves there.
    """

    name: str
    title: str
    reading: str
    alt: str
    spec: Mapping[str, Any]
    table: Table
    narrow: Mapping[str, Any] | None = None

    @property
    def hint(self) -> str:
        """What a pointer does in it; may be empty."""
        return str((self.spec.get("usermeta") or {}).get("hint", ""))


@dataclass(frozen=True)
class Notes:
    """Sentences of the text, or points of a list.

    Attributes:
        lines: each a paragraph or a point.
        listed: whether they are points.
    """

    lines: tuple[str, ...]
    listed: bool = False


@dataclass(frozen=True)
class Commands:
    """Lines that are typed into a terminal."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Folded:
    """A part that is shown on demand.

    Attributes:
        title: what it holds, in a few words.
        part: itself.
    """

    title: str
    part: Table | Commands


Part = Figure | Table | Notes | Commands | Folded


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its anchor.
        title: its heading.
        parts: what stands in it, in order.
    """

    name: str
    title: str
    parts: tuple[Part, ...] = field(default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Its pictures."""
        return tuple(part for part in self.parts if isinstance(part, Figure))
