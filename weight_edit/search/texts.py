"""The texts that candidates are scored on: what the model said to prompts, and what it should say instead."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A prompt that the model refuses, with its refusal and an answer: the edit is to prefer the second.

    Attributes:
        prompt: token ids.
        text: the prompt as a judge reads it.
        refusal, answer: token ids that follow the prompt, each at least one.
        known: the answer that the prompt set gives, as text; None where it has none.
    """

    prompt: tuple[int, ...]
    text: str
    refusal: tuple[int, ...]
    answer: tuple[int, ...]
    known: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An ordinary prompt with the model's own answer: what the model says there is to stay.

    Attributes:
        prompt: token ids.
        text: the prompt as a judge reads it.
        answer: token ids that follow the prompt, at least one.
        known: the answer that the prompt set gives, as text; None where it has none.
    """

    prompt: tuple[int, ...]
    text: str
    answer: tuple[int, ...]
    known: str | None = None


@dataclass(frozen=True, kw_only=True)
class Texts:
    """All texts of one part of the prompts (training or validation).

    Attributes:
        refused: prompts whose refusal is to go.
        ordinary: prompts whose answers are to stay.
        over_refused: harmless prompts that are refused, if there are any: their refusal is to go as well.
    """

    refused: tuple[Choice, ...]
    ordinary: tuple[Kept, ...]
    over_refused: tuple[Choice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Texts":
        """The texts that `to_dict` gave."""

        def choices(name: str) -> tuple[Choice, ...]:
            return tuple(Choice(**_tuples(each)) for each in entry[name])

        ordinary = tuple(Kept(**_tuples(each)) for each in entry["ordinary"])
        return cls(refused=choices("refused"), ordinary=ordinary, over_refused=choices("over_refused"))


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
