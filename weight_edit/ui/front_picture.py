"""The front of a search as a picture: refusal against damage, the picked point filled."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.ui.figures import longest_refusal
from weight_edit.ui.markup import text

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 300, 56, 44, 12, 32
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def front_picture(front: Sequence[Mapping[str, Any]], picked: str) -> str:
    """An SVG picture of the points of a front; empty where fewer than two can be drawn.

    Damage is on a logarithmic axis: the points of a front lie decades apart. The bars are the refusals' intervals.
    """
    places = [place for place in (_place(number, point) for number, point in enumerate(front, 1)) if place is not None]
    if len(places) < 2:
        return ""
    logs = [math.log10(damage) for _, _, damage, _ in places]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high += high == low

    def x(damage: float) -> float:
        return _LEFT + (math.log10(damage) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    drawn = [_axes(low, high, x)]
    for number, digest, damage, rate in places:
        drawn.append(_point(number, x(damage), rate, filled=digest == picked))
    words = f"Refusal against damage of the {len(places)} points of the front; the table below has the figures"
    return (
        f'<figure class="we-figure"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(words)}">'
        f"{''.join(drawn)}</svg><figcaption>Down and left is better: less refusal, less damage. The filled point is "
        "picked; bars are 95% intervals.</figcaption></figure>"
    )


def _place(number: int, point: Mapping[str, Any]) -> tuple[int, str, float, Mapping[str, Any]] | None:
    """Number, digest, damage and refusal of a point; None where one is missing."""
    cheap = point.get("cheap")
    validation = cheap.get("validation") if isinstance(cheap, dict) else None
    damage = validation.get("damage") if isinstance(validation, dict) else None
    rate = longest_refusal(point)
    known = all(isinstance(rate.get(name), int | float) for name in ("value", "low", "high"))
    if not isinstance(damage, int | float) or not known:
        return None
    return number, str(point.get("digest")), max(float(damage), 1e-7), rate


def _y(rate: float) -> float:
    return _TOP + (1 - min(1.0, max(0.0, rate))) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(low: int, high: int, x: Any) -> str:
    lines = []
    for tick in _TICKS:
        lines.append(
            f'<line class="we-grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(tick):.1f}" y2="{_y(tick):.1f}"/>'
        )
        lines.append(f'<text x="{_LEFT - 8}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for power in range(low, high + 1):
        lines.append(f'<text x="{x(10.0**power):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{10.0**power:g}</text>')
    lines.append(
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">damage, nats per token</text>'
    )
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    lines.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">refusal</text>')
    return "".join(lines)


def _point(number: int, at: float, rate: Mapping[str, Any], *, filled: bool) -> str:
    kind = "we-picked" if filled else "we-point"
    low, value, high = (f"{_y(rate[name]):.1f}" for name in ("low", "value", "high"))
    return (
        f'<line class="we-interval" x1="{at:.1f}" x2="{at:.1f}" y1="{low}" y2="{high}"/>'
        f'<circle class="{kind}" cx="{at:.1f}" cy="{value}" r="6"/>'
        f'<text x="{at + 9:.1f}" y="{_y(rate["value"]) - 7:.1f}">{number}</text>'
    )
