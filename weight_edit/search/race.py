"""The race of candidates on growing numbers of prompts: who can no longer come to the front is asked no more."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from weight_edit.search.front import dominates
from weight_edit.search.score import Score, preferred
from weight_edit.search.texts import Texts
from weight_edit.utils.arrays import Floats

if TYPE_CHECKING:
    from weight_edit.search.point import Point

FIRST = 8
"""Prompts of each set in the first rung."""

CONFIDENCE = 0.975
"""Of each one-sided bound on a difference from a rival, 97.5%: the lower end of a 95% interval."""

Kind = Literal["refused", "ordinary", "over_refused"]
KINDS: tuple[Kind, ...] = ("refused", "ordinary", "over_refused")


class Scoring(Protocol):
    """What scores points: a `Scorer`, or one that knows the scores."""

    texts: Texts
    tokens: int

    def scores(
        self,
        points: "Sequence[Point]",
        *,
        refused: Sequence[int] | None = None,
        ordinary: Sequence[int] | None = None,
        over_refused: Sequence[int] | None = None,
        description: str | None = None,
    ) -> list[Score]:
        """The scores of points on prompts by number."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A rung of a race, and its cost.

    Attributes:
        asked: by set, the prompts that candidates had been asked at its end.
        candidates: that were asked.
        exact: that were dropped since whatever the other prompts gave, a point of the front would be at least as good.
        paired: that were dropped since a rival is better by the prompts that both were asked, as far as can be told.
        prompts: asked in this rung, of all candidates and sets together.
        tokens: of those prompts and the texts behind them, both of a refused one's; what is read once is counted as
            often as it stands there.
    """

    asked: Mapping[Kind, int]
    candidates: int
    exact: int
    paired: int
    prompts: int
    tokens: int

    @property
    def on(self) -> int:
        """The candidates that go on, or at the last rung those that have a whole score."""
        return self.candidates - self.exact - self.paired

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields, and how many go on."""
        return {**asdict(self), "asked": dict(self.asked), "on": self.on}


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Why a candidate was dropped.

    Attributes:
        rung: from 1.
        by: the digest of the rival that is better.
        exact: whether that is certain for these prompts; else it is by an interval.
        score: of the prompts that it was asked.
    """

    rung: int
    by: str
    exact: bool
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {"rung": self.rung, "by": self.by, "exact": self.exact, "score": self.score.to_dict()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Drop":
        """What `to_dict` gave."""
        return cls(**{**entry, "score": Score.from_dict(entry["score"])})


@dataclass(frozen=True, kw_only=True)
class Race:
    """What came of a race, by the candidates' digests.

    Attributes:
        scores: whole ones, of the candidates that were asked all prompts.
        dropped: the others.
        rungs: in order.
    """

    scores: Mapping[str, Score]
    dropped: Mapping[str, Drop]
    rungs: tuple[Rung, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {
            "scores": {digest: score.to_dict() for digest, score in self.scores.items()},
            "dropped": {digest: drop.to_dict() for digest, drop in self.dropped.items()},
            "rungs": [rung.to_dict() for rung in self.rungs],
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Race":
        """The race that `to_dict` gave."""
        return cls(
            scores={digest: Score.from_dict(each) for digest, each in entry["scores"].items()},
            dropped={digest: Drop.from_dict(each) for digest, each in entry["dropped"].items()},
            rungs=tuple(
                Rung(**{name: value for name, value in each.items() if name != "on"}) for each in entry["rungs"]
            ),
        )


def race(
    scorer: Scoring,
    points: "Sequence[Point]",
    front: Mapping[str, Score] | None = None,
    *,
    first: int = FIRST,
    growth: int = 2,
    seed: int = 0,
    description: str | None = None,
) -> Race:
    """The whole scores of those candidates that may come to the front, and what the others had when they were dropped.

    All candidates are scored on a few prompts of each set, in an order drawn by the seed; those that go on are scored
    on as many again, until all prompts are asked. A candidate is dropped where one rival is better by every objective:

    - exactly: a prompt adds nothing below 0 to refusal, damage or over-refusal, so the sums so far over all N prompts
      are lower bounds of the candidate's means. Where a point of the front is at least as good by all of these, the
      candidate would not come before it, whatever the other prompts gave.
    - paired: of the differences from a rival on the n prompts that both were asked, the lower bound
      `mean - t deviation / sqrt(n) sqrt(1 - n / N)` is above 0 for every objective, t the quantile of Student's
      distribution for 97.5%, one-sided. Rivals are the front's points and the other candidates of the rung. The last
      factor is that of a sample of N prompts without replacement. As all objectives have to be worse, a candidate that
      is as good by one is dropped wrongly in at most 2.5% of comparisons, as far as differences are normal.

    By `benchmarks/search_race.py`, 80 random edits of the embedded model on 64 prompts of each set read .66 to .72 of
    the tokens that all prompts for all of them take; of 21 points on the front 1 or 2 are lost, near others, so that
    the hypervolume is .995 of the whole one or more.

    Args:
        scorer: of the training prompts.
        points: the candidates; of those with the same digest one is scored, and of those in the front none anew.
        front: by digest, whole scores of points that candidates have to beat, on the same prompts.
        first, growth: prompts of each set in the first rung, and by what their number grows.
        description: names the progress bars; None draws none.

    Raises:
        ValueError: a score of the front is not of all prompts; or fewer than three prompts at first, or a growth below
            2.
    """
    if first < 3 or growth < 2:
        raise ValueError(f"a first rung of {first} prompts that grows by {growth}; from 3 and 2 on, please")
    front = front or {}
    texts = {kind: len(getattr(scorer.texts, kind)) for kind in KINDS}
    orders = {kind: _order(count, seed, kind) for kind, count in texts.items()}
    rivals = {digest: _values(score) for digest, score in front.items()}
    if any({kind: len(each[kind]) for kind in KINDS} != texts for each in rivals.values()):
        raise ValueError(f"a score of the front is not of the prompts that candidates are asked, {texts}")
    state = _State(scorer=scorer, orders=orders, front=rivals)
    state.running = {point.digest: _Runner(point) for point in points if point.digest not in front}
    known = {point.digest: front[point.digest] for point in points if point.digest in front}
    upto = first
    while state.running:
        state.ask(upto, description)
        if upto >= max(texts.values()):
            break
        upto *= growth
    return Race(
        scores=known | {digest: runner.score(orders) for digest, runner in state.running.items()},
        dropped=state.dropped,
        rungs=tuple(state.rungs),
    )


_Values = Mapping[Kind, Floats]
"""By set, a value for each prompt: the probability of the refusal, the divergence."""


@dataclass(eq=False)
class _Runner:
    """A candidate with its scores, on each rung's prompts."""

    point: "Point"
    parts: list[Score] = field(default_factory=list)

    @property
    def asked(self) -> Score:
        """The score of the prompts that were asked, in that order."""
        return Score(
            ratios=np.concatenate([each.ratios for each in self.parts]),
            kl=np.concatenate([each.kl for each in self.parts]),
            over_ratios=np.concatenate([each.over_ratios for each in self.parts]),
        )

    def score(self, orders: Mapping[Kind, Sequence[int]]) -> Score:
        """The whole score, in the order of the texts."""
        asked = self.asked
        return Score(
            ratios=asked.ratios[np.argsort(orders["refused"])],
            kl=asked.kl[np.argsort(orders["ordinary"])],
            over_ratios=asked.over_ratios[np.argsort(orders["over_refused"])],
        )


@dataclass(kw_only=True, eq=False)
class _State:
    """A race as it stands.

    Attributes:
        front: by digest, the values of the points to beat, in the order of the texts.
    """

    scorer: Scoring
    orders: Mapping[Kind, Sequence[int]]
    front: Mapping[str, _Values]
    running: dict[str, _Runner] = field(default_factory=dict)
    dropped: dict[str, Drop] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)

    def ask(self, upto: int, description: str | None) -> None:
        """Score all candidates on the next prompts, up to so many of each set, and drop who is beaten."""
        before = self.rungs[-1].asked if self.rungs else dict.fromkeys(KINDS, 0)
        new = {kind: self.orders[kind][before[kind] : upto] for kind in KINDS}
        runners = list(self.running.values())
        scores = self.scorer.scores(
            [runner.point for runner in runners],
            refused=new["refused"],
            ordinary=new["ordinary"],
            over_refused=new["over_refused"],
            description=description,
        )
        for runner, score in zip(runners, scores, strict=True):
            runner.parts.append(score)
        asked = {kind: min(upto, len(self.orders[kind])) for kind in KINDS}
        beaten = self._beaten(asked)
        self.rungs.append(
            Rung(
                asked=asked,
                candidates=len(runners),
                exact=sum(exact for _, exact in beaten.values()),
                paired=sum(not exact for _, exact in beaten.values()),
                prompts=len(runners) * sum(map(len, new.values())),
                tokens=len(runners) * self._tokens(new),
            )
        )
        for digest, (by, exact) in beaten.items():
            score = self.running.pop(digest).asked
            self.dropped[digest] = Drop(rung=len(self.rungs), by=by, exact=exact, score=score)

    def _beaten(self, asked: Mapping[Kind, int]) -> dict[str, tuple[str, bool]]:
        """By digest, the candidates that are beaten: by whom, and whether exactly."""
        totals = {kind: len(order) for kind, order in self.orders.items()}
        if dict(asked) == totals:
            return {}
        values = {digest: _values(runner.asked) for digest, runner in self.running.items()}
        common = {
            digest: {kind: each[kind][list(self.orders[kind][: asked[kind]])] for kind in KINDS}
            for digest, each in self.front.items()
        }
        whole = {digest: _means(each, totals) for digest, each in self.front.items()}
        found: dict[str, tuple[str, bool]] = {}
        for digest, own in values.items():
            least = _means(own, totals)
            certain = next((by for by, at in whole.items() if at == least or dominates(at, least)), None)
            if certain is not None:
                found[digest] = (certain, True)
                continue
            others = {by: each for by, each in (common | values).items() if by != digest}
            told = next((by for by, each in others.items() if _is_worse(own, each, totals)), None)
            if told is not None:
                found[digest] = (told, False)
        return found

    def _tokens(self, numbers: Mapping[Kind, Sequence[int]]) -> int:
        """The tokens of prompts and of the texts behind them that are read."""
        texts, read = self.scorer.texts, self.scorer.tokens
        total = 0
        for kind, choices in (("refused", texts.refused), ("over_refused", texts.over_refused)):
            for each in (choices[row] for row in numbers[kind]):  # type: ignore[index]
                total += 2 * len(each.prompt) + min(read, len(each.refusal)) + min(read, len(each.answer))
        return total + sum(
            len(texts.ordinary[row].prompt) + min(read, len(texts.ordinary[row].answer)) for row in numbers["ordinary"]
        )


def _order(count: int, seed: int, kind: str) -> list[int]:
    numbers = list(range(count))
    random.Random(f"{seed}/race/{kind}").shuffle(numbers)
    return numbers


def _values(score: Score) -> _Values:
    return {"refused": preferred(score.ratios), "ordinary": score.kl, "over_refused": preferred(score.over_ratios)}


def _means(values: _Values, totals: Mapping[Kind, int]) -> tuple[float, ...]:
    """By objective, the sum over the number of all prompts; sets without prompts are no objective."""
    return tuple(float(values[kind].sum()) / totals[kind] for kind in KINDS if totals[kind])


def _is_worse(own: _Values, other: _Values, totals: Mapping[Kind, int]) -> bool:
    """Whether the first is worse than the second by every objective, as far as their common prompts tell."""
    return all(_least_difference(own[kind] - other[kind], totals[kind]) > 0 for kind in KINDS if totals[kind])


def _least_difference(differences: Floats, total: int) -> float:
    """The lower bound of a mean over `total` prompts, of which these were drawn; the mean itself where they are all."""
    n = len(differences)
    mean = float(differences.mean())
    if n == total:
        return mean
    error = float(differences.std(ddof=1)) / math.sqrt(n) * math.sqrt(1 - n / total)
    return mean - student_quantile(CONFIDENCE, n - 1) * error


@lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution, for a probability above .5 and whole degrees of freedom.

    By halving the interval in the angle of the distribution's finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The probability that |t| < sqrt(freedom) tan(angle)."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
