"""The Pareto front of points by refusal, damage and over-refusal, and the volume that it dominates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_DAMAGE = 1e-4
"""Damage in nats per token below which points are not told apart: a divergence that no text shows."""

_NO_GAIN = 1e-9
"""A share of the box that is the sum's rounding."""

LARGEST = 1.0
"""The objectives of the reference point of hypervolumes: every prompt refused, one nat per token."""


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A point by what is to be small of it.

    Attributes:
        digest: names the point (`Point.digest`).
        refusal: of prompts that should be answered, in [0, 1]: the judged rate, or the cheap score's.
        damage: divergence from the base on ordinary prompts, in nats per token.
        over_refusal: of harmless prompts, in [0, 1]; None where it is not measured.
        interval: the ends of the refusal's 95% interval; None where it has none.

    Raises:
        ValueError: a figure is not finite, or a rate outside of [0, 1].
    """

    digest: str
    refusal: float
    damage: float
    over_refusal: float | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        rates = [self.refusal, *([] if self.over_refusal is None else [self.over_refusal])]
        # Rounding may leave a divergence of nothing a little below 0.
        if not all(0 <= each <= 1 for each in rates) or not math.isfinite(self.damage):
            raise ValueError(f"a point with refusal {self.refusal}, damage {self.damage}, over {self.over_refusal}")

    @property
    def objectives(self) -> tuple[float, ...]:
        """Refusal, damage and, where it is measured, over-refusal."""
        return (self.refusal, self.damage, *(() if self.over_refusal is None else (self.over_refusal,)))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {
            "digest": self.digest,
            "refusal": self.refusal,
            "damage": self.damage,
            "over_refusal": self.over_refusal,
            "interval": None if self.interval is None else list(self.interval),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "FrontPoint":
        """The point that `to_dict` gave."""
        around = entry["interval"]
        return cls(**{**entry, "interval": None if around is None else (around[0], around[1])})


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point is at least as good as the other by all objectives, and better by one; less is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The points that no other dominates, by rising damage; what comes first has the most refusal as a rule.

    Of points with the same objectives, one is kept: that of the first digest. Points are compared by their figures as
    they stand, intervals aside.

    Raises:
        ValueError: over-refusal is measured of some points only.
    """
    check_alike(points)
    once: dict[tuple[float, ...], FrontPoint] = {}
    for point in sorted(points, key=lambda each: each.digest):
        once.setdefault(point.objectives, point)
    kept = [point for at, point in once.items() if not any(dominates(other, at) for other in once)]
    return sorted(kept, key=by_damage)


def covering(points: Sequence[FrontPoint], most: int, given: Sequence[FrontPoint] = ()) -> list[FrontPoint]:
    """So many points that dominate much of what all of them do, the most telling first.

    One by one the point is taken that adds most to the `hypervolume` of those before it, which comes within 1 - 1/e of
    the best choice (Nemhauser, Wolsey and Fisher 1978: the volume is submodular). Points that add nothing are left out.

    Args:
        most: points.
        given: what is chosen already; these are not given again.
    """
    chosen: list[FrontPoint] = []
    left = [each for each in points if each not in given]
    while left and len(chosen) < most:
        before = hypervolume([*given, *chosen])
        gains = [hypervolume([*given, *chosen, each]) - before for each in left]
        best = max(range(len(left)), key=gains.__getitem__)
        if gains[best] <= _NO_GAIN:
            break
        chosen.append(left.pop(best))
    return chosen


def by_damage(point: FrontPoint) -> tuple[float, float, str]:
    """The order of a front: damage, then refusal, then digest."""
    return point.damage, point.refusal, point.digest


def check_alike(points: Iterable[FrontPoint]) -> None:
    """Refuse points of which some have an over-refusal and others not.

    Raises:
        ValueError: they do.
    """
    if len({len(point.objectives) for point in points}) > 1:
        raise ValueError("over-refusal is measured of some points only")


def hypervolume(
    points: Sequence[FrontPoint],
    reference: Sequence[float] = (LARGEST, LARGEST, LARGEST),
    *,
    least_damage: float = LEAST_DAMAGE,
) -> float:
    """The share of a box that points dominate: 0 for none, 1 for a point that refuses nothing and damages nothing.

    The box goes from the ideal point to the reference point (r, d, o), refusal and over-refusal on a linear scale and
    damage on a logarithmic one. With `D(x) = log(d / max(x, least)) / log(d / least)` a point of refusal p, damage x
    and over-refusal q dominates the box of sides `1 - p / r`, `D(x)` and `1 - q / o`; the hypervolume (Zitzler and
    Thiele, PPSN 1998) is the volume of the union of these boxes. It is exact: the plane is swept once, and a third
    objective is cut into slices.

    Args:
        points: any, dominated ones too; those beyond the reference point dominate nothing.
        reference: of refusal, damage in nats per token and over-refusal; the third for points that have it.
        least_damage: less damage counts as this much.

    Raises:
        ValueError: the reference's damage is not above the least, it has fewer objectives than the points, or
            over-refusal is measured of some points only.
    """
    check_alike(points)
    if any(len(point.objectives) > len(reference) for point in points):
        raise ValueError(f"points of three objectives and a reference of {len(reference)}")
    if not 0 < least_damage < reference[1]:
        raise ValueError(f"a least damage of {least_damage} with a reference of {reference[1]}")
    scale = math.log(reference[1] / least_damage)

    def sides(point: FrontPoint) -> tuple[float, ...]:
        gained = math.log(reference[1] / max(point.damage, least_damage)) / scale
        rates = (point.refusal, point.over_refusal)
        linear = [1 - rate / most for rate, most in zip(rates, reference[::2], strict=False) if rate is not None]
        return (linear[0], gained, *linear[1:])

    return _volume([found for point in points if min(found := sides(point)) > 0])


def _volume(boxes: Sequence[tuple[float, ...]]) -> float:
    """The volume of the union of boxes that share the corner 0, given by the lengths of their sides."""
    if not boxes:
        return 0.0
    if len(boxes[0]) == 1:
        return max(side for (side,) in boxes)
    total = 0.0
    ends = sorted({box[-1] for box in boxes})
    for start, end in zip([0.0, *ends], ends, strict=False):
        total += (end - start) * _volume([box[:-1] for box in boxes if box[-1] >= end])
    return total
