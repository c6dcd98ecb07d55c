"""The answers of both models side by side, the changed ones first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.report.run_record import RunRecord
from weight_edit.report.values import text

_MOST_CHARACTERS = 900_000
"""Of all answers that a page holds, so that the file stays small."""

_LONGEST_ANSWER = 6000
_LONG = 700
"""The characters from which on an answer is folded."""

SETS = {
    "refused": "requests that the base refuses",
    "over_refused": "harmless requests that the base refuses",
    "harmless_looking": "harmless-looking requests",
    "answered": "ordinary requests",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model's answer.

    Attributes:
        words: the answer.
        verdict: of the judge.
        cut: whether it ended at the limit of tokens.
    """

    words: str
    verdict: str
    cut: bool


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt with the answers of the models.

    Attributes:
        group: of the prompt, in words.
        category: as the prompt set has it; may be empty.
        prompt: what was asked.
        base, edited: the answers; None where a model was not asked.
        changed: whether the verdicts differ.
        folded: why it is folded, in words; empty where it is not.
    """

    group: str
    category: str
    prompt: str
    base: Side | None
    edited: Side | None
    changed: bool
    folded: str

    @property
    def verdicts(self) -> str:
        """The verdict, or the two."""
        said = [side.verdict for side in (self.base, self.edited) if side is not None]
        return " → ".join(dict.fromkeys(said)) if not self.changed else " → ".join(said)


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
    base, edited = record.answers["baseline"], record.answers["edited"]
    paired = _paired(base, edited) if edited else [(row, None) for row in base]
    pairs = sorted((_pair(before, after) for before, after in paired), key=lambda pair: not pair.changed)
    kept, size = [], 0
    for pair in pairs:
        size += len(pair.prompt) + sum(len(side.words) + 200 for side in (pair.base, pair.edited) if side)
        if size > _MOST_CHARACTERS:
            break
        kept.append(pair)
    return Answers(tuple(kept), len(pairs) - len(kept))


def _paired(
    base: list[dict[str, Any]], edited: list[dict[str, Any]]
) -> list[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """The answers to the same prompt of the same set; the order is that of the edited model's."""
    waiting: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in base:
        waiting.setdefault(_key(row), []).append(row)
    found: list[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]] = []
    for row in edited:
        same = waiting.get(_key(row))
        found.append((same.pop(0) if same else None, row))
    return found + [(row, None) for rows in waiting.values() for row in rows]


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("set")), str(row.get("prompt"))


def _pair(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Pair:
    some = after or before or {}
    base, edited = _side(before), _side(after)
    changed = base is not None and edited is not None and base.verdict != edited.verdict
    name = text(some.get("set"), 60) or "?"
    folded = ""
    if edited is not None and name == "refused" and edited.verdict not in ("refused", "?"):
        folded = "an answer to a request that the base refuses"
    elif any(side is not None and len(side.words) > _LONG for side in (base, edited)):
        folded = "long"
    return Pair(
        group=SETS.get(name, name),
        category=text(some.get("category"), 60) or "",
        prompt=_words(some.get("prompt")),
        base=base,
        edited=edited,
        changed=changed,
        folded=folded,
    )


def _side(row: Mapping[str, Any] | None) -> Side | None:
    if row is None:
        return None
    return Side(
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
