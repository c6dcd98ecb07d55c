"""The rule by which one point of a front is picked, as the command line and recipes write it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weight_edit.errors import UsageError
from weight_edit.search.front import LEAST_DAMAGE, FrontPoint, by_damage

DEFAULT_PICK = "refusal<=0.05"
"""The rule where none is given: the least damage of at most a twentieth refused."""

FORMS = "refusal<=0.1, damage<=0.02, knee, or a point's number or digest"

_DIGEST = 12  # hexadecimal digits
_BOUND = re.compile(r"(refusal|damage)\s*<=\s*([0-9.]+(?:e-?[0-9]+)?)")
_SHORTEST = 4  # digits of a digest that may be given alone


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
        kind: "refusal" or "damage", a bound on it, with the least of the other; "knee"; "number"; or "digest".
        bound: the bound.
        number: of the point in the front, by rising damage, from 1.
        digest: the point's, or how it begins.
    """

    kind: Literal["refusal", "damage", "knee", "number", "digest"]
    bound: float = math.nan
    number: int = 0
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "PickRule":
        """A rule as the command line has it: a bound on refusal or damage, `knee`, or a point's number or digest.

        Raises:
            UsageError: it is none of these.
        """
        given = text.strip().lower()
        bound = _BOUND.fullmatch(given)
        if bound is not None:
            value = _number(bound[2])
            if value is not None and (bound[1] == "damage" or value <= 1):
                return cls(kind="refusal" if bound[1] == "refusal" else "damage", bound=value)
        elif given == "knee":
            return cls(kind="knee")
        # A digest of digits alone is as long as digests are; fewer digits are a number.
        elif given.isdecimal() and given.isascii() and len(given) < _DIGEST and int(given) > 0:
            return cls(kind="number", number=int(given))
        elif re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},{_DIGEST}}}", given):
            return cls(kind="digest", digest=given)
        raise UsageError(f"`pick={text[:60]}`: write {FORMS}", option="pick")

    def __str__(self) -> str:
        if self.kind in ("refusal", "damage"):
            return f"{self.kind}<={self.bound:g}"
        return {"knee": "knee", "number": str(self.number)}.get(self.kind, self.digest)

    @property
    def description(self) -> str:
        """The rule in plain words."""
        return {
            "refusal": f"the least damage of the points with a refusal of at most {self.bound:g}",
            "damage": f"the least refusal of the points with a damage of at most {self.bound:g} nats per token",
            "knee": "the knee of the front, furthest below the line between its ends by refusal and log damage",
            "number": f"point {self.number} of the front, by rising damage",
            "digest": f"the point {self.digest}",
        }[self.kind]

    def __call__(self, front: Sequence[FrontPoint]) -> Pick:
        """The point that the rule picks of a front.

        Of points that are equally good by the rule, that of the least damage, then of the first digest. Where none
        keeps the bound, it is the one that is nearest to it: of the least refusal, or the least damage.

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

    def _bounded(self, points: Sequence[FrontPoint]) -> Pick:
        def bounded(point: FrontPoint) -> float:
            return point.refusal if self.kind == "refusal" else point.damage

        def other(point: FrontPoint) -> float:
            return point.damage if self.kind == "refusal" else point.refusal

        passing = [point for point in points if bounded(point) <= self.bound]
        if passing:
            chosen = min(passing, key=lambda each: (other(each), *by_damage(each)))
            unsure = ""
            if self.kind == "refusal" and chosen.interval is not None and chosen.interval[1] > self.bound:
                unsure = f"; its interval goes up to {chosen.interval[1]:.3f}, so that more prompts may say otherwise"
            return Pick(point=chosen, kept=True, reason=f"{self.description}{unsure}")
        chosen = min(points, key=lambda each: (bounded(each), *by_damage(each)))
        unit = "" if self.kind == "refusal" else " nats per token"
        reason = (
            f"no point has a {self.kind} of at most {self.bound:g}{unit}: the one with the least, "
            f"{bounded(chosen):.3g}, was taken"
        )
        return Pick(point=chosen, kept=False, reason=reason)

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
