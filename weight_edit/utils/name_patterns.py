"""Names that differ in numbers, as one pattern: `layers.{0..31}.w2.weight`."""

import re
from collections.abc import Iterable, Sequence
from math import prod

MOST_RUNS = 3
_NUMBERS = re.compile(r"(?<![0-9A-Za-z])([0-9]+)(?![0-9A-Za-z])")


def patterns(names: Iterable[str]) -> list[tuple[str, int]]:
    """(pattern, number of names) of each group, in order of the first name.

    Names that a product of ranges does not give exactly are still one pattern: what it says of each number is true.
    """
    groups: dict[tuple[str, ...], list[list[int]]] = {}
    for name in names:
        parts = _NUMBERS.split(name)
        groups.setdefault(tuple(parts[::2]), []).append([int(number) for number in parts[1::2]])
    return [(_pattern(texts, numbers), len(numbers)) for texts, numbers in groups.items()]


def _pattern(texts: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    columns = [sorted(set(column)) for column in zip(*rows, strict=True)]
    exact = prod(len(column) for column in columns) == len(rows)
    written = [str(column[0]) if len(column) == 1 else "{" + numbers(column, "..") + "}" for column in columns]
    text = "".join(a + b for a, b in zip(texts, [*written, ""], strict=True))
    return text if exact else f"{text} (some)"


def numbers(some: Iterable[int], to: str = "-") -> str:
    """Whole numbers as ranges; long lists are abbreviated.

    As "0-31", "3, 7, ..., 47", "0-2, 4-6, ..., 44-46".
    """
    runs: list[list[int]] = []
    for number in sorted(set(some)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    written = [str(run[0]) if len(run) == 1 else f"{run[0]}{to}{run[-1]}" for run in runs]
    if len(written) > MOST_RUNS + 1:
        written = [*written[: MOST_RUNS - 1], "...", written[-1]]
    return ", ".join(written)


def general(name: str) -> str:
    """The name with a star for every number: `model.layers.*.mlp.down_proj.weight`."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
