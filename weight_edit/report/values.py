"""Values of somebody else's JSON: a number, a text, a rate with its interval, or nothing.

Whatever stands in a record, these give plain values or None, so that a strange record leaves a gap in the page and no
error.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weight_edit.checkpoint.files import printable

LONGEST = 300
"""The characters of a name that are shown."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
        value: the figure; a share in [0, 1] where it is a rate.
        low, high: ends of the interval; None where none is known.
        count: prompts that it is of; None where that is not said.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


def at(content: object, path: str) -> Any:
    """The entry at a path with dots; None where there is none."""
    for key in path.split("."):
        if not isinstance(content, Mapping):
            return None
        content = content.get(key)
    return content


def number(found: object) -> float | None:
    """A finite number."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        value = float(found)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def whole(found: object) -> int | None:
    """A whole number."""
    return found if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**53 else None


def text(found: object, limit: int = LONGEST) -> str | None:
    """A text on one line, without what a terminal or a page would obey; None where it is none or empty."""
    if not isinstance(found, str) or not found.strip():
        return None
    return printable(" ".join(found.split()), limit)


def shortened(said: str, most: int) -> str:
    """A text of so many characters at most: what is cut is its middle, since names often differ where they end."""
    kept = max(2, most - 3)
    return said if len(said) <= most else f"{said[: kept - kept // 2]}...{said[len(said) - kept // 2 :]}"


def told_apart(names: Iterable[str], shown: Callable[[str], str]) -> dict[str, str]:
    """Names by what is shown of them, with a number where two would be the same."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        said, count = shown(name), 2
        while said in taken:
            said, count = f"{shown(name)} ({count})", count + 1
        found[name] = said
        taken.add(said)
    return found


def named(found: object) -> str:
    """A text, a number or a list of these in words; "?" where it is none of them."""
    if isinstance(found, bool) or found is None:
        return "?"
    if isinstance(found, list) and any(isinstance(each, Mapping) for each in found):
        return f"{len(found)} in a list"
    if isinstance(found, Mapping):
        return f"{len(found)} entries" if found else "none"
    if isinstance(found, list):
        return ", ".join(named(each) for each in found[:20]) or "none"
    value = number(found)
    return f"{value:g}" if value is not None else text(found) or "?"


def entries(found: object) -> dict[str, Any]:
    """A mapping with texts as keys; empty where it is none."""
    return {key: value for key, value in found.items() if isinstance(key, str)} if isinstance(found, Mapping) else {}


def rows(found: object, most: int = 5000) -> list[dict[str, Any]]:
    """The mappings of a list, so many at most; empty where it is none."""
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    return [entries(each) for each in found[:most] if isinstance(each, Mapping)]


def texts(found: object, most: int = 200) -> list[str]:
    """The texts of a list."""
    return [said for each in found[:most] if (said := text(each))] if isinstance(found, list) else []


def estimate(found: object, key: str = "value") -> Estimate | None:
    """A figure with its interval, as results keep it: under `value` (or `mean`), `low`, `high`, `total` or `count`."""
    value = number(at(found, key))
    if value is None:
        return None
    low, high = number(at(found, "low")), number(at(found, "high"))
    if low is None or high is None or low > high:
        low = high = None
    count = whole(at(found, "total"))
    return Estimate(value, low, high, whole(at(found, "count")) if count is None else count)


def rate(found: object) -> Estimate | None:
    """An `estimate` that is a share; None where it lies outside [0, 1]."""
    known = estimate(found)
    if known is None or not 0 <= known.value <= 1:
        return None
    if known.low is not None and known.high is not None and (known.low < 0 or known.high > 1):
        return Estimate(known.value, count=known.count)
    return known


def cells(row: Mapping[str, Any], name: str) -> Estimate | None:
    """The figure of a study's row: the cell `name`, with `name_low` and `name_high`."""
    return estimate({"value": row.get(name), "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")})


def numbered(found: object) -> Iterator[tuple[int, Any]]:
    """The entries of a mapping whose keys are whole numbers, by these."""
    known = entries(found)
    for key in sorted((each for each in known if each.isdecimal() and len(each) < 10), key=int):
        yield int(key), known[key]
