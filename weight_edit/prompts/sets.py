"""Prompt sets: cleaned, hashed, and split into disjoint parts."""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weight_edit.errors import UsageError

FILE_ENDINGS = (".txt", ".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts in a fixed order, with their known answers and categories.

    Build one from raw texts with `PromptSet.of`, which cleans them.

    Attributes:
        name: where the set comes from, as the user wrote it.
        prompts: the texts; `of` makes them distinct, non-empty and free of white space at the ends.
        answers: the right answer of each prompt, None where none is known.
        categories: the category of each prompt, None where none is given.
        dropped: how many were left out as "empty" and as "duplicate".
        columns: which columns of a table "prompts", "answers" and "categories" were taken from.
        source: of a public set the dataset on the Hub, with revision, configuration, split and licence as far as they
            are known; empty for others.

    Raises:
        UsageError: the three tuples differ in length.
    """

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str | None, ...]
    categories: tuple[str | None, ...]
    dropped: Mapping[str, int] = field(default_factory=lambda: {"empty": 0, "duplicate": 0})
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    source: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        lengths = (len(self.prompts), len(self.answers), len(self.categories))
        if len(set(lengths)) != 1:
            raise UsageError(
                f"{self.name}: {lengths[0]} prompts, {lengths[1]} answers and {lengths[2]} categories; "
                "give one answer and one category (or None) for each prompt"
            )

    @classmethod
    def of(
        cls,
        name: str,
        prompts: Iterable[str],
        answers: Iterable[str | None] | None = None,
        categories: Iterable[str | None] | None = None,
    ) -> "PromptSet":
        """A set of raw texts: stripped, empty ones dropped, repeated ones kept once.

        Raises:
            UsageError: a prompt is no valid text, the lists differ in length, or nothing is left.
        """
        texts = list(prompts)
        known = [None] * len(texts) if answers is None else list(answers)
        groups = [None] * len(texts) if categories is None else list(categories)
        raw = cls(name=name, prompts=tuple(texts), answers=tuple(known), categories=tuple(groups))
        kept: dict[str, int] = {}
        dropped = {"empty": 0, "duplicate": 0}
        for row, text in enumerate(raw.prompts):
            stripped = _checked(text, name, row).strip()
            if not stripped:
                dropped["empty"] += 1
            elif stripped in kept:
                dropped["duplicate"] += 1
            else:
                kept[stripped] = row
        if not kept:
            raise UsageError(f"{name} has no prompts ({len(texts)} entries, all empty); give at least one")
        rows = kept.values()
        chosen_answers = tuple((known[row] or "").strip() or None for row in rows)
        return cls(
            name=name,
            prompts=tuple(kept),
            answers=chosen_answers,
            categories=tuple(groups[row] for row in rows),
            dropped=dropped,
        )

    @property
    def sha256(self) -> str:
        """The hex digest of the prompts in order, taken over their JSON list."""
        return hashlib.sha256(json.dumps(list(self.prompts)).encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        return f"PromptSet({self.name!r}, {len(self)} prompts)"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def content_sha256(self) -> str:
        """The hex digest of prompts, answers and categories."""
        content = [self.prompts, self.answers, self.categories]
        return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()

    def at_most(self, limit: int | None) -> "PromptSet":
        """The set itself if it has at most `limit` prompts, else `take(limit, seed 0)` of it.

        Raises:
            UsageError: the limit is below 1.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"the limit is {limit}; it must be at least 1")
        return self if limit is None or len(self) <= limit else self.take(limit)

    def take(self, n: int, seed: int = 0) -> "PromptSet":
        """`n` prompts, drawn by seed with categories in proportion; equal to `split((n,), seed)`.

        Raises:
            UsageError: there are fewer than n.
        """
        return self.split((n,), seed)[0]

    def split(self, sizes: Sequence[int], seed: int = 0) -> tuple["PromptSet", ...]:
        """Disjoint parts of given sizes, drawn by seed, each with categories in proportion.

        Within a part the prompts keep the set's order.

        Raises:
            UsageError: a size is negative, or the set has fewer prompts than the sizes need together.
        """
        if any(size < 0 for size in sizes):
            raise UsageError(f"{self.name}: the sizes {tuple(sizes)} of a split must not be negative")
        if sum(sizes) > len(self):
            raise UsageError(
                f"{self.name} has {len(self)} prompts, but {sum(sizes)} are needed "
                f"({' + '.join(map(str, sizes))}); give more prompts or ask for fewer"
            )
        order = self._mixed(seed)
        parts, start = [], 0
        for size in sizes:
            parts.append(self._pick(sorted(order[start : start + size])))
            start += size
        return tuple(parts)

    def _mixed(self, seed: int) -> list[int]:
        """All row numbers shuffled such that every stretch has categories in proportion.

        This is systematic sampling.
        """
        rows_of: dict[str | None, list[int]] = {}
        for row, category in enumerate(self.categories):
            rows_of.setdefault(category, []).append(row)
        places: list[tuple[float, int]] = []
        for category, rows in rows_of.items():
            # Seeded with a text per category: one category's order does not depend on which others exist.
            chance = random.Random(f"{seed}/{category}")
            chance.shuffle(rows)
            offset = chance.random()
            places += [((index + offset) / len(rows), row) for index, row in enumerate(rows)]
        return [row for _, row in sorted(places)]

    def _pick(self, rows: Sequence[int]) -> "PromptSet":
        def of(values: tuple) -> tuple:
            return tuple(values[row] for row in rows)

        return PromptSet(
            name=self.name,
            prompts=of(self.prompts),
            answers=of(self.answers),
            categories=of(self.categories),
            dropped=self.dropped,
            columns=self.columns,
            source=self.source,
        )


def _checked(text: str, name: str, row: int) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{name}: entry {row + 1} has an unpaired surrogate; repair its encoding") from None
    return text


def public_name(name: str) -> str:
    """A set's name fit for publication: of a local file only the last part."""
    path, colon, column = name.rpartition(":")
    if not colon or "/" in column or "\\" in column:
        path, colon, column = name, "", ""
    is_file = path.lower().endswith(FILE_ENDINGS)
    return re.split(r"[/\\]", path)[-1] + colon + column if is_file else name
