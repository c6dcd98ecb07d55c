"""Figures as people read them."""

from weight_edit.report.values import Estimate

NONE = "not measured"


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent, such as "98.1 %"."""
    return f"{100 * share:.{digits}f} %"


def share(found: Estimate | None) -> str:
    """A rate with its interval: "98.1 % [95.3, 99.3]"."""
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return percent(found.value)
    return f"{percent(found.value)} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def points(found: Estimate | None) -> str:
    """A difference of rates with its interval, in points: "-100.0 [-100.0, -96.6] points"."""
    if found is None:
        return NONE
    low, high = (None if each is None else 100 * each for each in (found.low, found.high))
    return f"{decimal(Estimate(100 * found.value, low, high), 1, signed=True)} points"


def decimal(found: Estimate | None, digits: int = 4, *, signed: bool = False) -> str:
    """A figure with its interval: "0.0067 [0.0030, 0.0104]"."""
    if found is None:
        return NONE
    said = _rounded(found.value, digits, signed)
    if found.low is not None and found.high is not None:
        said += f" [{_rounded(found.low, digits, signed)}, {_rounded(found.high, digits, signed)}]"
    return said


def _rounded(value: float, digits: int, signed: bool) -> str:
    """A number so rounded that no zero has a sign."""
    # Of what is rounded to -0, adding 0 makes 0.
    near = round(value, digits) + 0.0
    return f"{near:+.{digits}f}" if signed and near else f"{near:.{digits}f}"


def small(value: float | None) -> str:
    """A number that may be tiny or large: "7.3e-08", "0.58"."""
    if value is None:
        return NONE
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: "1 prompt", "220 prompts"."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
