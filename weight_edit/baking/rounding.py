"""The account of what storing an edit in a quantised format did to it: by tensor, and by format."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.checkpoint.tensor.edited import RoundingLoss

MOST_LEFT = 0.01
"""The share of `V^T W` that rounding may leave of a tensor before that is said and another way is offered."""


@dataclass(frozen=True, kw_only=True)
class FormatRounding:
    """The rounding of all edited tensors in one format, at its worst.

    Attributes:
        format: its name, such as "Q4_K" or "GPTQ".
        tensors: how many there are.
        kept: the least share of the edit that is in a tensor.
        left: the most of `V^T W` that a tensor has left; `worst` is its name.
        error: the most that a tensor is off from the edit not rounded, as a share of its size.
        rescaled: blocks whose scale was made anew.
    """

    format: str
    tensors: int
    kept: float
    left: float
    worst: str
    error: float
    rescaled: int


def rounding_record(losses: Mapping[str, RoundingLoss], formats: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The manifest's entry: tensor -> its format and what rounding did to it.

    Args:
        formats: tensor -> the name of its format.
    """
    return {
        name: {
            "format": formats[name],
            "kept": loss.kept,
            "left": loss.left,
            "error": loss.error,
            "rescaled": loss.rescaled,
        }
        for name, loss in losses.items()
    }


def by_format(record: Mapping[str, Mapping[str, Any]]) -> Iterator[FormatRounding]:
    """The rounding in each format of a manifest's entry, in the order of their names.

    Raises:
        KeyError, TypeError, ValueError: an entry that is not of our making.
    """
    for name in sorted({str(loss["format"]) for loss in record.values()}):
        own = {tensor: loss for tensor, loss in record.items() if loss["format"] == name}
        worst = max(own, key=lambda tensor: float(own[tensor]["left"]))
        yield FormatRounding(
            format=name,
            tensors=len(own),
            kept=min(float(loss["kept"]) for loss in own.values()),
            left=float(own[worst]["left"]),
            worst=worst,
            error=max(float(loss["error"]) for loss in own.values()),
            rescaled=sum(int(loss["rescaled"]) for loss in own.values()),
        )


def coarse(record: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tensors of which rounding leaves more than `MOST_LEFT`, those with the most first."""
    over = [name for name, loss in record.items() if float(loss["left"]) > MOST_LEFT]
    return sorted(over, key=lambda name: -float(record[name]["left"]))
