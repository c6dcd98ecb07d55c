"""The texts that candidates are scored on: what the model said to prompts, and what it should say instead."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

KEPT_TOKENS = 32
"""The first tokens of a text that are kept; scores read fewer."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A prompt that the model refuses, with its refusal and an answer: the edit is to prefer the second.

    Attributes:
        prompt: token ids, and behind them those that both texts begin with: they cancel in a ratio of the two, and the
            first tokens that are scored are those that differ. Models that think first often begin alike.
        text: the prompt as a judge reads it.
        refusal, answer: token ids that follow the prompt, each at least one.
        known: the answer that the prompt set gives, as text; None where it has none.
        shared: how many of the prompt's last tokens belong to both texts.
    """

    prompt: tuple[int, ...]
    text: str
    refusal: tuple[int, ...]
    answer: tuple[int, ...]
    known: str | None = None
    shared: int = 0

    @property
    def asked(self) -> tuple[int, ...]:
        """The prompt alone, to generate from."""
        return self.prompt[: len(self.prompt) - self.shared]

    @property
    def whole_answer(self) -> tuple[int, ...]:
        """The answer with what the refusal begins with too."""
        return (*self.prompt[len(self.prompt) - self.shared :], *self.answer)

    @classmethod
    def of(
        cls,
        asked: Sequence[int],
        text: str,
        *,
        refusal: Sequence[int],
        answer: Sequence[int],
        known: str | None = None,
        tokens: int = KEPT_TOKENS,
    ) -> "Choice | None":
        """The choice between two texts, whole or long enough; None where one is the other's beginning.

        Args:
            tokens: so many of each are kept behind what they share.
        """
        pairs = zip(refusal, answer, strict=False)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(refusal), len(answer)))
        if shared == min(len(refusal), len(answer)):
            return None
        return cls(
            prompt=(*asked, *refusal[:shared]),
            text=text,
            refusal=tuple(refusal[shared : shared + tokens]),
            answer=tuple(answer[shared : shared + tokens]),
            known=known,
            shared=shared,
        )


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
