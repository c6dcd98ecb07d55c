"""Numbers, times and intervals of them in a few digits, with a decimal prefix."""

from weight_edit.utils.progress import duration

_SCALES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(number: float, unit: str = "", digits: int = 3) -> str:
    """A number in a few digits with a decimal prefix, such as "1.23 TB"."""
    scale, prefix = _scale(number)
    return f"{_digits(number / scale, digits)} {prefix}{unit}".rstrip()


def count(parameters: int) -> str:
    """A number of parameters as the field writes it, such as "70.6B"."""
    return amount(parameters).replace(" ", "").replace("G", "B")


def between(low: float, high: float, unit: str = "") -> str:
    """An interval in two digits, or a number where both bounds are one; nothing for 0."""
    if high == 0:
        return ""
    most = amount(high, unit, digits=2)
    if low == 0:
        return f"0 to {most}"
    least = amount(low, unit, digits=2)
    if least == most:
        return amount(high, unit)
    alike = _scale(low) == _scale(high)
    return f"{least.partition(' ')[0] if alike else least} to {most}"


def time_between(low: float, high: float) -> str:
    """An interval of times in words, or one time where both bounds read the same."""
    least, most = duration(low), duration(high)
    return least if least == most else f"{least} to {most}"


def _scale(number: float) -> tuple[float, str]:
    return next(((scale, prefix) for scale, prefix in _SCALES if number >= 0.9995 * scale), (1.0, ""))


def _digits(number: float, digits: int) -> str:
    return f"{number:.{digits}g}" if number < 0.9995 * 10**digits else f"{number:.0f}"
