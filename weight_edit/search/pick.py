"""The rule by which one point of a front is picked, as the command line and recipes write it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from weight_edit.errors import UsageError
from weight_edit.search.front import LEAST_DAMAGE, FrontPoint, by_damage

DEFAULT_PICK = "refusal<=0.05"
"""The rule where none is given: the least damage of at most a twentieth refused."""

FORMS = (
    "refusal<=0.1, damage<=0.02, over-refusal<=0.1, several of these with commas between, knee, or a point's number or "
    "digest"
)

_DIGEST = 12  # hexadecimal digits
_BOUND = re.compile(r"(refusal|over-refusal|damage)\s*<=\s*([0-9.]+(?:e-?[0-9]+)?)")
_SHORTEST = 4  # digits of a digest that may be given alone
_UNITS = {"damage": " nats per token"}


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The point that a rule picks.

    Attributes:
        point: the point.
        kept: whether the rule could be kept; False where no point keeps its bound, and the nearest was taken.
        reason: in a sentence why it was picked.
    """

    point: FrontPoint
    kept: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the point, whether the rule is kept, and the reason."""
        return {"point": self.point.to_dict(), "kept": self.kept, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class PickRule:
    """How one point of a front is picked. Figures count as they stand; their intervals are said beside them.

    Attributes:
        kind: "bounds", "knee", "number" or "digest".
        bounds: on "refusal", "over-refusal" and "damage", by what comes first. Of the points that keep them it is the
            least damage where refusal is bounded, else the least refusal.
        number: of the point in the front, by rising damage, from 1.
        digest: the point's, or how it begins.
    """

    kind: Literal["bounds", "knee", "number", "digest"]
    bounds: Mapping[str, float] = field(default_factory=dict)
    number: int = 0
    digest: str = ""

    @classmethod
    def parse(cls, text: str, *, over_refusal: bool = True) -> "PickRule":
        """A rule as the command line has it: bounds with commas between, `knee`, or a point's number or digest.

        Args:
            over_refusal: whether over-refusal is measured, so that it can be bounded.

        Raises:
            UsageError: it is none of these, or bounds what is not measured.
        """
        given = text.strip().lower()
        bounds: dict[str, float] = {}
        parts = given.split(",")
        for part in parts:
            bound = _BOUND.fullmatch(part.strip())
            value = None if bound is None else _number(bound[2])
            if bound is not None and value is not None:
                if bound[1] != "damage" and value > 1:
                    raise UsageError(
                        f"`pick={text[:60]}`: {bound[1]} is a rate between 0 and 1, such as {bound[1]}<=0.05",
                        option="pick",
                    )
                bounds[bound[1]] = value
        if "over-refusal" in bounds and not over_refusal:
            raise UsageError(
                f"`pick={text[:60]}`: over-refusal needs prompts of its own; give `over_refused`, or no such bound",
                option=["pick", "over_refused"],
            )
        if len(bounds) == len(parts):
            return cls(kind="bounds", bounds=bounds)
        if given == "knee":
            return cls(kind="knee")
        # A digest of digits alone is as long as digests are; fewer digits are a number.
        if given.isdecimal() and given.isascii() and len(given) < _DIGEST and int(given) > 0:
            return cls(kind="number", number=int(given))
        if re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},{_DIGEST}}}", given):
            return cls(kind="digest", digest=given)
        raise UsageError(f"`pick={text[:60]}`: write {FORMS}", option="pick")

    def __str__(self) -> str:
        if self.kind == "bounds":
            return ",".join(f"{name}<={bound:g}" for name, bound in self.bounds.items())
        return {"knee": "knee", "number": str(self.number)}.get(self.kind, self.digest)

    @property
    def description(self) -> str:
        """The rule in plain words."""
        return {
            "bounds": f"the least {self._least} of the points with {_in_words(self.bounds)}",
            "knee": "the knee of the front, furthest below the line between its ends by refusal and log damage",
            "number": f"point {self.number} of the front, by rising damage",
            "digest": f"the point {self.digest}",
        }[self.kind]

    def __call__(self, front: Sequence[FrontPoint]) -> Pick:
        """The point that the rule picks of a front.

        Of points that are equally good by the rule, that of the least damage, then of the first digest. Where none
        keeps a bound, it is the one that is nearest to it, of those that keep the bounds before it.

        Raises:
            UsageError: the front is empty, or has no such number or digest.
        """
        if not front:
            raise UsageError("the search found no point, so that none can be picked")
        points = sorted(front, key=by_damage)
        if self.kind in ("number", "digest"):
            return Pick(point=self._named(points), kept=True, reason=f"picked by name: {self.description}")
        if self.kind == "knee":
            return _knee(points, self.description)
        return self._bounded(points)

    @property
    def _least(self) -> str:
        """Of what the least is taken."""
        return "damage" if "refusal" in self.bounds else "refusal"

    def _bounded(self, points: Sequence[FrontPoint]) -> Pick:
        kept: dict[str, float] = {}
        for name, bound in self.bounds.items():
            passing = [point for point in points if _figure(point, name) <= bound]
            if not passing:
                return Pick(
                    point=min(points, key=partial(_order, name)), kept=False, reason=_missed(points, kept, name, bound)
                )
            points, kept = passing, {**kept, name: bound}
        chosen = min(points, key=partial(_order, self._least))
        unsure = ""
        if chosen.interval is not None and chosen.interval[1] > self.bounds.get("refusal", 1.0):
            unsure = f"; its interval goes up to {chosen.interval[1]:.3f}, so that more prompts may say otherwise"
        return Pick(point=chosen, kept=True, reason=f"{self.description}{unsure}")

    def _named(self, points: Sequence[FrontPoint]) -> FrontPoint:
        if self.kind == "number":
            if self.number > len(points):
                raise UsageError(
                    f"`pick={self.number}`: the front has {len(points)} points; write a number from 1 to {len(points)}",
                    option="pick",
                )
            return points[self.number - 1]
        found = [point for point in points if point.digest.startswith(self.digest)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(point.digest for point in (found or points)[:12])
        what = "no point of the front begins so" if not found else "several points of the front begin so"
        raise UsageError(f"`pick={self.digest}`: {what}; write one of {listed}", option="pick")


def picked(front: Sequence[FrontPoint], rule: PickRule | str = DEFAULT_PICK) -> Pick:
    """The point that a rule picks of a front, with the reason.

    Raises:
        UsageError: as `PickRule.parse` and the rule itself.
    """
    return (PickRule.parse(rule) if isinstance(rule, str) else rule)(front)


def _figure(point: FrontPoint, name: str) -> float:
    """What a bound is on; an over-refusal that nobody measured keeps none."""
    over = math.inf if point.over_refusal is None else point.over_refusal
    return {"refusal": point.refusal, "over-refusal": over, "damage": point.damage}[name]


def _order(name: str, point: FrontPoint) -> tuple[float, float, float, str]:
    return _figure(point, name), *by_damage(point)


def _in_words(bounds: Mapping[str, float]) -> str:
    return " and ".join(_bound_in_words(name, bound) for name, bound in bounds.items())


def _bound_in_words(name: str, bound: float) -> str:
    article = "an" if name == "over-refusal" else "a"
    return f"{article} {name} of at most {bound:g}{_UNITS.get(name, '')}"


def _missed(points: Sequence[FrontPoint], kept: Mapping[str, float], name: str, bound: float) -> str:
    """Why no point keeps a bound, of those that keep the ones before it."""
    among = f" with {_in_words(kept)}" if kept else ""
    least = min(_figure(point, name) for point in points)
    if math.isinf(least):
        return f"{name} was not measured, so that its bound could not be kept"
    return f"no point{among} has {_bound_in_words(name, bound)}: the one with the least, {least:.3g}, was taken"


def _knee(points: Sequence[FrontPoint], description: str) -> Pick:
    """The point furthest below the line between the ends, both objectives scaled to [0, 1] (Das, 1999).

    Where no point is below it, the default rule picks.
    """
    places = [(point.refusal, math.log(max(point.damage, LEAST_DAMAGE))) for point in points]
    low = [min(values) for values in zip(*places, strict=True)]
    span = [max(values) - least for values, least in zip(zip(*places, strict=True), low, strict=True)]
    if min(span) > 0:
        # Between (1, 0) and (0, 1) the line is x + y = 1.
        below = [1 - sum((x - a) / b for x, a, b in zip(place, low, span, strict=True)) for place in places]
        best = max(range(len(points)), key=lambda number: (below[number], -number))
        if below[best] > 1e-9:
            return Pick(point=points[best], kept=True, reason=description)
    instead = PickRule.parse(DEFAULT_PICK)(points)
    return Pick(
        point=instead.point,
        kept=False,
        reason=f"the front of {len(points)} points has no knee; in its place {instead.reason}",
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
