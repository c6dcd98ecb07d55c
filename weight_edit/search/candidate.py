"""A candidate of a search with its cheap score, and which of many are looked at closer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from weight_edit.search.front import FrontPoint, covering, front
from weight_edit.search.point import Point
from weight_edit.search.score import Score
from weight_edit.search.space import Value

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A point with its cheap scores on training prompts.

    Attributes:
        point: the edit.
        score: None of what lost by its sketch.
        sketch: the cheaper score (`Scorer.sketch`); None of what was not sketched.
        raced: it was sketched on all prompts; False where it lost on the first of them.
    """

    point: Point
    score: Score | None = None
    sketch: Score | None = None
    raced: bool = True

    @property
    def cheapest(self) -> Score:
        """The sketch where there is one, else the score."""
        found = self.score if self.sketch is None else self.sketch
        assert found is not None
        return found

    @property
    def told(self) -> tuple[Mapping[str, Value], tuple[float, ...] | None] | None:
        """What a sampler is told of it: what was drawn, and the sketch where it is whole; None where nothing was."""
        params = self.point.facts.get("params")
        if params is None or self.sketch is None:
            return None
        return params, self.sketch.objectives if self.raced else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {
            "point": self.point.to_dict(),
            "score": None if self.score is None else self.score.to_dict(),
            "sketch": None if self.sketch is None else self.sketch.to_dict(),
            "raced": self.raced,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Candidate":
        """The candidate that `to_dict` gave."""

        def score(name: str) -> Score | None:
            return None if entry[name] is None else Score.from_dict(entry[name])

        return cls(
            point=Point.from_dict(entry["point"]),
            score=score("score"),
            sketch=score("sketch"),
            raced=bool(entry["raced"]),
        )


def on_front(scores: Mapping[str, Score]) -> list[str]:
    """The digests of the points that no other beats by their scores, by rising damage."""
    return [each.digest for each in front([place(digest, score) for digest, score in scores.items()])]


def place(digest: str, score: Score) -> FrontPoint:
    """A point by what a cheap score says of it."""
    return FrontPoint(digest=digest, refusal=score.refusal, damage=score.damage, over_refusal=score.over_refusal)


def scores_of(candidates: Sequence[Candidate]) -> dict[str, Score]:
    """By digest, the scores of those that have one, which is of numbers."""
    return {each.point.digest: each.score for each in candidates if each.score is not None and each.score.is_finite}


def sketches_of(candidates: Sequence[Candidate]) -> dict[str, Score]:
    """By digest, the whole sketches of those that have one, which is of numbers."""
    return {
        each.point.digest: each.sketch
        for each in candidates
        if each.sketch is not None and each.raced and each.sketch.is_finite
    }


def best_first(scores: Mapping[str, Score], unit: float) -> list[str]:
    """The digests of points by the loss that a descent lowers at a price of 1, but for its answers' term; least first.

    Args:
        unit: the damage of the plain full ablation, in nats per token.
    """

    def loss(digest: str) -> tuple[float, str]:
        score = scores[digest]
        refusals = [float(np.logaddexp(0.0, each).mean()) for each in (score.ratios, score.over_ratios) if each.size]
        return sum(refusals) + score.damage / unit, digest

    return sorted(scores, key=loss)


def contenders(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The candidates that may be on the front of other prompts: those on it by training prompts, then what lies behind.

    Of the points that a descent fitted to its prompts, or of the luckiest of many draws, the scores on these prompts
    are too good, so that the front by other prompts is made of a few layers of it.

    Args:
        most: candidates.
    """
    known = {each.point.digest: each for each in reversed(candidates)}
    left = scores_of(candidates)
    found: list[str] = []
    while left and len(found) < most:
        layer = on_front(left)
        if len(layer) > most - len(found):
            return [known[digest] for digest in (*found, *_telling(left, most - len(found)))]
        found += layer
        left = {digest: score for digest, score in left.items() if digest not in set(layer)}
    return [known[digest] for digest in found]


def to_judge(candidates: Sequence[Candidate], held: Mapping[str, Score], most: int) -> list[Candidate]:
    """The candidates whose answers are worth judging: half of them from the front, the others spread over all scores.

    Of the front it is the points that show most of it (`covering`): it may be long, and its ends alike. The first of
    all, the plain ablation, is among them. How well a score ranks can be told only of candidates that differ by it, so
    the others are taken at equal steps of the order by refusal.

    Args:
        held: by digest, scores of contenders on prompts that they were not chosen by; the front is by these.
        most: candidates.
    """
    known = {each.point.digest: each for each in reversed(candidates)}
    chosen = dict.fromkeys([candidates[0].point.digest, *_telling(held, most // 2)])
    others = sorted(
        (d for d, each in known.items() if d not in chosen and each.raced and each.cheapest.is_finite),
        key=lambda digest: (known[digest].cheapest.refusal, digest),
    )
    chosen |= dict.fromkeys(evenly(others, most - len(chosen)))
    return [known[digest] for digest in chosen]


def _telling(scores: Mapping[str, Score], most: int) -> list[str]:
    """The digests of points that show most of the front of some scores."""
    points = [place(digest, score) for digest, score in scores.items() if score.is_finite]
    return [each.digest for each in covering(front(points), most)]


def finalists(best: Sequence[FrontPoint], most: int) -> list[str]:
    """The digests of the points of a front that are judged at every length: of those that refuse least, and of others.

    Half of them are those that refuse least, where a point is picked as a rule; the others are those that show most of
    the rest, see `covering`.

    Args:
        best: the front.
        most: points.
    """
    least = sorted(best, key=lambda each: (each.refusal, each.damage, each.digest))[: -(-most // 2)]
    return [each.digest for each in (*least, *covering(best, most - len(least), least))]


def evenly(items: Sequence[T], most: int) -> list[T]:
    """So many of them at equal steps, both ends among them."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, max(most, 0)).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]
