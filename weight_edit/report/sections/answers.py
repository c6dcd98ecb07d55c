"""The answers of both models side by side, the changed ones first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.report.charts import AFTER, BEFORE
from weight_edit.report.run_record import RunRecord
from weight_edit.report.values import text

_MOST_CHARACTERS = 900_000
"""Of all answers that a page holds, so that the file stays small."""

_LONGEST_ANSWER = 6000
_LONG = 700
"""The characters from which on an answer is folded."""

SETS = {
    "refused": "refused requests",
    "over_refused": "over-refused, harmless requests",
    "harmless_looking": "harmless-looking requests",
    "answered": "ordinary requests",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model's answer.

    Attributes:
        of: which model's, in words.
        words: the answer.
        verdict: of the judge.
        cut: whether it ended at the limit of tokens.
    """

    of: str
    words: str
    verdict: str
    cut: bool


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt with the answers of two models, or more.

    Attributes:
        group: of the prompt, in words.
        category: as the prompt set has it; may be empty.
        prompt: what was asked.
        sides: the answers.
        folded: why they are folded, in words; empty where they are not.
    """

    group: str
    category: str
    prompt: str
    sides: tuple[Side, ...]
    folded: str

    @property
    def changed(self) -> bool:
        """Whether the verdicts differ."""
        return len({side.verdict for side in self.sides}) > 1

    @property
    def verdicts(self) -> str:
        """The verdict, or all of them where they differ."""
        said = [side.verdict for side in self.sides]
        return " → ".join(said) if self.changed else said[0]


@dataclass(frozen=True)
class Answers:
    """The pairs of a run.

    Attributes:
        pairs: changed ones first.
        left_out: how many there are beyond what the page holds.
    """

    pairs: tuple[Pair, ...]
    left_out: int = 0

    @property
    def groups(self) -> list[str]:
        """The groups that there are."""
        return _distinct(pair.group for pair in self.pairs)

    @property
    def categories(self) -> list[str]:
        """The categories that there are."""
        return sorted(_distinct(pair.category for pair in self.pairs if pair.category))

    @property
    def verdicts(self) -> list[str]:
        """The verdicts, or changes of verdict, that there are."""
        return _distinct(pair.verdicts for pair in self.pairs)

    @property
    def changed(self) -> int:
        """How many have changed verdicts."""
        return sum(pair.changed for pair in self.pairs)


def answers(record: RunRecord) -> Answers:
    """The answers of a run, side by side."""
    known = {BEFORE: record.answers["baseline"], AFTER: record.answers["edited"]}
    return side_by_side({name: rows for name, rows in known.items() if rows})


def side_by_side(known: Mapping[str, list[dict[str, Any]]], base: str = BEFORE) -> Answers:
    """The answers of several models to the same prompts, those with differing verdicts first.

    Args:
        known: by the model's name, the rows of its file.
        base: the name of the model without an edit, where it is among them.
    """
    pairs = sorted((_pair(rows, base) for rows in matched(known)), key=lambda pair: not pair.changed)
    kept, size = [], 0
    for pair in pairs:
        size += len(pair.prompt) + sum(len(side.words) + 200 for side in pair.sides)
        if size > _MOST_CHARACTERS:
            break
        kept.append(pair)
    return Answers(tuple(kept), len(pairs) - len(kept))


def matched(known: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Mapping[str, Any]]]:
    """The rows of several models by prompt and set, in the order in which prompts first come; by model's name."""
    found: dict[tuple[str, str, int], dict[str, Mapping[str, Any]]] = {}
    for name, rows in known.items():
        seen: dict[tuple[str, str], int] = {}
        for row in rows:
            key = str(row.get("set")), str(row.get("prompt"))
            # A prompt that a set has twice is two prompts.
            seen[key] = seen.get(key, 0) + 1
            found.setdefault((*key, seen[key]), {})[name] = row
    return list(found.values())


def _pair(rows: Mapping[str, Mapping[str, Any]], base: str) -> Pair:
    some = next(iter(rows.values()))
    sides = tuple(_side(name, row) for name, row in rows.items())
    name = text(some.get("set"), 60) or "?"
    folded = ""
    if name == "refused" and any(side.verdict not in ("refused", "?") for side in sides if side.of != base):
        folded = "an answer to one of the refused requests"
    elif any(len(side.words) > _LONG for side in sides):
        folded = "long"
    return Pair(
        group=SETS.get(name, name),
        category=text(some.get("category"), 60) or "",
        prompt=_words(some.get("prompt")),
        sides=sides,
        folded=folded,
    )


def _side(name: str, row: Mapping[str, Any]) -> Side:
    return Side(
        of=name,
        words=_words(row.get("answer")) or "(nothing)",
        verdict=(text(row.get("verdict"), 40) or "?").replace("_", " "),
        cut=row.get("finished") is False,
    )


def _words(found: object) -> str:
    """A text with its lines, without control characters and direction marks that would hide something."""
    if not isinstance(found, str):
        return ""
    shown = "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in found[:_LONGEST_ANSWER])
    return shown + (" ..." if len(found) > _LONGEST_ANSWER else "")


def _distinct(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))
