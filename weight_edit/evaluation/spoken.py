"""What a target said to one prompt: the reply, its length, and what it would have been at shorter limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from weight_edit.evaluation.registry import Reply


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A reply with its length, and what it would have been at shorter limits.

    Attributes:
        reply: the whole one.
        tokens: how many the model wrote, thoughts included and the end of the turn not; None where nobody counted.
        cut: by length in tokens, the reply cut there; the same `reply` where it is no longer.
    """

    reply: Reply
    tokens: int | None = None
    cut: Mapping[int, Reply] = field(default_factory=dict)
