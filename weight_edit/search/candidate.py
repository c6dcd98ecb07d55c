"""A candidate of a search with its cheap score, and which of many are looked at closer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from weight_edit.search.front import FrontPoint, front
from weight_edit.search.point import Point
from weight_edit.search.score import Score
from weight_edit.search.space import Value

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A point with its score on training prompts.

    Attributes:
        point: the edit.
        score: of the prompts that were asked.
        whole: all prompts were asked; False where it lost on the first of them.
        params: what a sampler drew; None where it did not.
    """

    point: Point
    score: Score
    whole: bool = True
    params: Mapping[str, Value] | None = None

    @property
    def place(self) -> FrontPoint:
        """By what the cheap score says of it."""
        return FrontPoint(
            digest=self.point.digest,
            refusal=self.score.refusal,
            damage=self.score.damage,
            over_refusal=self.score.over_refusal,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {
            "point": self.point.to_dict(),
            "score": self.score.to_dict(),
            "whole": self.whole,
            "params": None if self.params is None else dict(self.params),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Candidate":
        """The candidate that `to_dict` gave."""
        return cls(
            point=Point.from_dict(entry["point"]),
            score=Score.from_dict(entry["score"]),
            whole=bool(entry["whole"]),
            params=entry["params"],
        )


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that were scored on all prompts, each edit once, in order."""
    return list({each.point.digest: each for each in reversed(candidates) if each.whole}.values())[::-1]


def on_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other beats by cheap scores, by rising damage."""
    by_digest = {each.point.digest: each for each in candidates if each.whole}
    return [by_digest[each.digest] for each in front([each.place for each in by_digest.values()])]


def best_first(candidates: Sequence[Candidate], unit: float) -> list[Candidate]:
    """The candidates by the loss that a descent lowers at a price of 1, the least first.

    Args:
        unit: the damage of the plain full ablation, in nats per token.
    """

    def loss(each: Candidate) -> tuple[float, str]:
        ratios = np.concatenate([each.score.ratios, each.score.over_ratios])
        return float(np.logaddexp(0.0, ratios).mean()) + each.score.damage / unit, each.point.digest

    return sorted((each for each in candidates if each.whole), key=loss)


def to_judge(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The candidates whose answers are worth judging: half of them from the front, the others spread over all scores.

    The first of all, the plain ablation, is among them. How well a score ranks can be told only of candidates that
    differ by it, so the others are taken at equal steps of the order by refusal.

    Args:
        most: candidates.
    """
    known = distinct(candidates)
    best = on_front(known)
    chosen = {each.point.digest: each for each in [*known[:1], *evenly(best, most // 2)]}
    others = sorted(
        (each for each in known if each.point.digest not in chosen),
        key=lambda each: (each.score.refusal, each.point.digest),
    )
    chosen |= {each.point.digest: each for each in evenly(others, most - len(chosen))}
    return list(chosen.values())


def evenly(items: Sequence[T], most: int) -> list[T]:
    """So many of them at equal steps, both ends among them."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, max(most, 0)).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]
