"""Numbers that are known as an interval, and what a piece of work takes."""

from dataclasses import dataclass, fields

__all__ = ["Amounts", "Range"]


@dataclass(frozen=True)
class Range:
    """A number between two bounds, which are one where it is known.

    Attributes:
        low: at least.
        high: at most.
    """

    low: float
    high: float

    @classmethod
    def of(cls, value: float) -> "Range":
        """A number that is known."""
        return cls(value, value)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"low": self.low, "high": self.high}


NONE = Range(0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a piece of work takes, as a number for each.

    Attributes:
        passes: prompts under one edit, or none, that go through the model.
        tokens: tokens that go through the blocks, the prompts' common prefix once for each edit.
        flops: of all that, with the unembedding where logits are read.
        decoded: of these FLOPs, those of tokens that are generated one after another.
        requests: times that an offloaded model is read.
        heads: of these, those in which its unembedding is read, too.
    """

    passes: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    decoded: float = 0.0
    requests: float = 0.0
    heads: float = 0.0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})
