"""What of a selection is measured next: the cheapest question first, and of whom it rejects for sure nothing more."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.certainty import misses_surely
from weight_edit.directions.scores import CandidateScore, addable, worth_scoring
from weight_edit.directions.selection import RELEASED, SelectionRule, excesses

AT_ONCE = 16
"""Candidates that are measured on at a time in search of what misses the bounds least."""

SIMILARITY = "similarity"
"""What a stage that asks for the two cosines of COSMIC measures."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Candidates that are asked for the same scores.

    Attributes:
        names: of the scores, `SIMILARITY` for those of COSMIC.
        numbers: of the candidates that lack one.
        before: how many that came so far have them.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    before: int


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of a selection.

    The layers that may be chosen come first, without a pass; then what adding the difference induces, which is run from
    its block on and rejects most; then the divergences under ablation, then what ablation bypasses. A candidate goes on
    while its intervals leave open that it keeps the bounds, or its means say so: the others can neither be chosen nor
    be measured on more prompts, whatever they would score later.

    Attributes:
        candidates: of the search.
        rule: the bounds, and by what the best is chosen.
        n_layers: the model's.
        tokens: whether there are refusal tokens, without which nothing is induced or bypassed.
        protected: whether there are prompts to be spared.
    """

    candidates: Sequence[Candidate]
    rule: SelectionRule
    n_layers: int
    tokens: bool
    protected: bool

    def next(self, table: Sequence[CandidateScore]) -> Stage | None:
        """The stage to measure, by what is known; None where the choice can be made.

        Args:
            table: the candidates' scores as far as they are measured.
        """
        eligible, alive = self._eligible, self._alive(table)
        released = self.rule.select == RELEASED
        asked: list[tuple[tuple[str, ...], list[int]]] = []
        if self.rule.min_induce is not None:
            asked.append((("induce",), eligible))
        asked.append((self._divergences, alive))
        if released:
            # Where the similarities peak is read off all candidates.
            asked.append(((SIMILARITY,), eligible))
        asked.append((("bypass",), alive))
        if self.rule.without_tokens and not released:
            asked.append(((SIMILARITY,), alive))
        return self._first(asked, table)

    def of_least_bad(self, table: Sequence[CandidateScore], count: int, *, added: bool = False) -> Stage | None:
        """The stage to measure for the first `count` of `nearest`; None where these are told.

        What a candidate exceeds the bounds by can only grow with further scores. So those that exceed them by least, as
        far as they are measured, are measured on, some at a time, until the rest are behind.

        Args:
            added: count those alone that have something to add.
        """
        eligible = set(self._eligible)
        over = excesses(table, self.rule, self.n_layers)
        known = [n for n in sorted(over, key=over.__getitem__) if n in eligible]
        known = [n for n in known if addable(self.candidates[n])] if added else known
        names = self._of_choice
        whole = [over[n] for n in known if not any(self._lacks(name, n, table) for name in names)]
        worst = whole[count - 1] if len(whole) >= count else math.inf
        # As many as an equal excess may hide: what else they score decides among these.
        open_ones = [n for n in known if over[n] <= worst and any(self._lacks(name, n, table) for name in names)]
        return self._first([((name,), open_ones[:AT_ONCE]) for name in names], table)

    def of_some(self, table: Sequence[CandidateScore], numbers: Iterable[int]) -> Stage | None:
        """The stage to measure so that some candidates have every score, also those that bound nothing."""
        names = (*self._divergences, "induce", "bypass")
        return self._first([((name,), list(numbers)) for name in names], table)

    @property
    def _of_choice(self) -> tuple[str, ...]:
        bounded = ("induce",) if self.rule.min_induce is not None else ()
        similar = (SIMILARITY,) if self.rule.without_tokens else ()
        return (*bounded, *self._divergences, "bypass", *similar)

    @property
    def _divergences(self) -> tuple[str, ...]:
        return ("kl", "protected_kl") if self.protected else ("kl",)

    @property
    def _eligible(self) -> list[int]:
        below = self.rule.layers(self.n_layers)
        return [number for number, each in enumerate(self.candidates) if worth_scoring(each, below)]

    def _alive(self, table: Sequence[CandidateScore]) -> list[int]:
        return [n for n in self._eligible if not misses_surely(table[n], self.rule, self.n_layers)]

    def _first(
        self, asked: Sequence[tuple[tuple[str, ...], list[int]]], table: Sequence[CandidateScore]
    ) -> Stage | None:
        for names, among in asked:
            able = [number for number in among if all(self._can_have(name, number) for name in names)]
            lacking = [n for n in able if any(_lacks(table[n], name) for name in names)]
            if lacking:
                return Stage(names=names, numbers=tuple(lacking), before=len(able) - len(lacking))
        return None

    def _lacks(self, name: str, number: int, table: Sequence[CandidateScore]) -> bool:
        return self._can_have(name, number) and _lacks(table[number], name)

    def _can_have(self, name: str, number: int) -> bool:
        if name == "induce":
            return self.tokens and addable(self.candidates[number])
        return self.tokens if name == "bypass" else True


def _lacks(score: CandidateScore, name: str) -> bool:
    return (score.cosmic if name == SIMILARITY else getattr(score, name)) is None
