"""Public prompt sets by a short name: which data set of the Hub each is, which of its rows, and under what licence.

They are the data of `public_sets.yaml`. Nothing of them is in the package: they are downloaded when they are used.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from weight_edit.errors import UsageError
from weight_edit.prompts.columns import Table
from weight_edit.prompts.hub import DatasetName, Gated, read_dataset
from weight_edit.prompts.sets import PromptSet
from weight_edit.utils.bounded_yaml import parse_yaml
from weight_edit.utils.names import check_known
from weight_edit.utils.settings import Section, validated

_FILE = Path(__file__).with_suffix(".yaml")
_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<part>[A-Za-z0-9_-]+))?(?P<slice>\[[^\]]*\])?")
_SLICE = re.compile(r"\[(?P<start>\d{0,9}):(?P<stop>\d{0,9})\]")


class Part(Section):
    """A part of a public set: the rows of a split, and their columns.

    Attributes:
        config, split: of the data set; no configuration where it has one alone.
        column: of the prompts; where a cell is a list of turns, the first is the prompt.
        where: the values that columns must have; "" is an empty cell.
        categories: the column of the prompts' categories.
        size: the number of prompts; None where it is not known.
    """

    split: str
    column: str
    config: str | None = None
    where: dict[str, str] = Field(default_factory=dict)
    categories: str | None = None
    size: int | None


class PublicSet(Section):
    """A public prompt set.

    Attributes:
        title: what is in it.
        paper: its arXiv id.
        id, revision: of the data set on the Hub, and the commit that is read; None is the newest.
        licence: as the data set names it; None where it names none.
        gated: whether its terms have to be accepted on the Hub first.
        open: a set with the same requests that asks for nothing.
        parts: by name; the first is the one that is meant where none is named.
        sources: pages on which these entries were read -> the entries.
        quoted: addresses that public code gives for others.
    """

    title: str
    paper: str | None
    id: str
    revision: str | None
    licence: str | None
    gated: bool
    open: str | None = None
    parts: dict[str, Part]
    sources: dict[str, list[str]]
    quoted: dict[str, list[str]] = Field(default_factory=dict)

    @property
    def listed_parts(self) -> str:
        """The parts with their sizes, the one that is meant where none is named first."""
        return ", ".join(name if part.size is None else f"{name} ({part.size})" for name, part in self.parts.items())

    @property
    def terms(self) -> str:
        """The licence, and whether terms have to be accepted first."""
        return f"{self.licence or 'no licence stated'}{'; gated' if self.gated else ''}"

    @property
    def summary(self) -> str:
        """Title, parts with sizes, data set and terms, on one line."""
        return f"{self.title}; parts: {self.listed_parts}; {self.id}, {self.terms}."


class Chosen(Section):
    """A part of a public set, as a prompt set's name asks for it: `NAME[:PART][[START:STOP]]`.

    Attributes:
        spec: the name as the user wrote it.
        name, part: of the set and of its part.
        start, stop: the rows that are taken, of those that the part has; None is from the first, to the last.
    """

    spec: str
    name: str
    part: str
    start: int | None = None
    stop: int | None = None


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """The public sets by name, in alphabetical order."""
    content = parse_yaml(_FILE.read_text(encoding="utf-8"))
    return {name: validated(PublicSet, content[name], f"{_FILE.name}: {name}") for name in sorted(content)}


def chosen_set(spec: str) -> Chosen | None:
    """The public set that a prompt set's name means; None if it is the name of none.

    Raises:
        UsageError: the set has no such part, or the slice cannot be read.
    """
    match = _SPEC.fullmatch(spec)
    found = public_sets().get(match["name"].lower()) if match else None
    if match is None or found is None:
        return None
    name = match["name"].lower()
    part = match["part"] or next(iter(found.parts))
    check_known(f"part of the prompt set {name}", part, found.parts)
    rows = _SLICE.fullmatch(match["slice"] or "[:]")
    if rows is None:
        raise UsageError(f"{spec}: write the rows as numbers, such as {name}:{part}[:128] or {name}:{part}[128:160]")
    start, stop = (int(edge) if edge else None for edge in (rows["start"], rows["stop"]))
    return Chosen(spec=spec, name=name, part=part, start=start, stop=stop)


def load_public(chosen: Chosen, column: str | None = None) -> PromptSet:
    """The prompts of a public set, downloaded or cached, with the record of where they are from.

    Args:
        column: of the prompts, in place of the set's own.

    Raises:
        UsageError: no access to the Hub, terms that were not accepted, another data set than is expected there, or no
            prompts.
    """
    found = public_sets()[chosen.name]
    part = found.parts[chosen.part]
    if column is not None:
        part = part.model_copy(update={"column": column})
    try:
        table = read_dataset(DatasetName(found.id, part.config, part.split, part.column, found.revision))
    except Gated as error:
        if found.open is None:
            raise
        raise UsageError(f"{chosen.spec}: {error}; or take '{found.open}', which asks for nothing") from None
    needed = (part.column, *part.where, *([part.categories] if part.categories else []))
    missing = [column for column in needed if column not in table]
    if missing:
        raise UsageError(
            f"{chosen.spec}: {found.id} has no column {missing[0]!r}; its columns are: {', '.join(table)}; name one, "
            f"as in {found.id}{f'/{part.config}' if part.config else ''}:{part.split}:COLUMN"
        )
    rows = [row for row in range(len(table[part.column])) if _wanted(table, row, part.where)]
    rows = rows[chosen.start : chosen.stop]
    categories = None if part.categories is None else [_text(table[part.categories][row]) for row in rows]
    made = PromptSet.of(chosen.spec, [_text(table[part.column][row]) or "" for row in rows], None, categories)
    columns = {"prompts": part.column, **({} if part.categories is None else {"categories": part.categories})}
    return replace(made, columns=columns, source=_source(found, part))


def _wanted(table: Table, row: int, where: Mapping[str, str]) -> bool:
    return all((_text(table[column][row]) or "") == value for column, value in where.items())


def _text(cell: Any) -> str | None:
    """A cell's text; of several turns the first."""
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        cell = cell[0] if cell else None
    return None if cell is None else str(cell)


def _source(found: PublicSet, part: Part) -> dict[str, str]:
    """Where the prompts are from, ready for JSON; what is not known is left out."""
    known = {
        "dataset": found.id,
        "revision": found.revision,
        "config": part.config,
        "split": part.split,
        "where": ", ".join(f"{column} is {value or 'empty'}" for column, value in part.where.items()),
        "licence": found.licence,
    }
    return {key: value for key, value in known.items() if value}
