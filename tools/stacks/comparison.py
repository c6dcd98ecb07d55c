"""Greedy tokens of a stack held to transformers' own, place by place.

Transformers reads each prompt with the stack's own tokens behind it, so that every place is compared, those behind a
first difference too. Where its most probable token is another than the stack's, its margin is the difference of their
logits. Such a place is a near-tie if the margin is within the noise of the stack's precision: how far transformers' own
margins move in that precision, on the same model and texts (`precision.py`). No figure of the stack goes into it: what
computes another model has errors as large as its differences, but the noise of its precision stays small.

The stack's error is told beside it: how far its margin between its two best tokens is from transformers', at most, over
places where both find the same token most probable.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stacks.replies import Reply


@dataclass(frozen=True, kw_only=True)
class Place:
    """One token of a stack's reply.

    Attributes:
        margin: by how much, in nats, transformers finds another token more probable; 0 where it finds none.
        error: the difference of both margins between the stack's two best tokens; None where the stack does not say.
    """

    margin: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a stack's greedy tokens compare with transformers'.

    Attributes:
        places: all tokens that were compared.
        misread: how many prompts the stack divides into other tokens.
        stopped: how many replies ended where transformers does not end.
    """

    places: Sequence[Place]
    misread: int
    stopped: int

    @property
    def differences(self) -> Sequence[Place]:
        """Where transformers finds another token most probable."""
        return [place for place in self.places if place.margin > 0]

    @property
    def error(self) -> float:
        """The stack's largest error where both find the same token most probable; 0 where that is nowhere."""
        return max((place.error for place in self.places if place.margin == 0 and place.error is not None), default=0.0)

    def judged(self, noise: float) -> "Judgement":
        """Divide what differs into near-ties and differences.

        Args:
            noise: of the precision; see `precision.noise`.
        """
        margins = [place.margin for place in self.differences]
        return Judgement(
            places=len(self.places),
            near_ties=[margin for margin in margins if margin <= noise],
            beyond=[margin for margin in margins if margin > noise],
            stopped=self.stopped,
            noise=noise,
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a comparison comes to.

    Attributes:
        places: how many tokens were compared.
        near_ties: margins of places that differ within the noise.
        beyond: margins of the others that differ.
        stopped: how many replies ended where transformers does not end.
        noise: of the precision.
    """

    places: int
    near_ties: Sequence[float]
    beyond: Sequence[float]
    stopped: int
    noise: float

    @property
    def holds(self) -> bool:
        """Whether something was compared, and all that differs is a near-tie."""
        return bool(self.places) and not self.stopped and not self.beyond

    def __str__(self) -> str:
        if self.stopped:
            return f"**ended early in {self.stopped}**"
        if not self.places:
            return "**nothing compared**"
        if self.beyond:
            worst = max(self.beyond)
            return f"**{len(self.beyond)} of {self.places} differ** (margin {worst:.2g}, noise {self.noise:.2g})"
        if self.near_ties:
            ties = "near-tie" if len(self.near_ties) == 1 else "near-ties"
            worst = max(self.near_ties)
            return f"{len(self.near_ties)} {ties} of {self.places} (margin {worst:.2g}, noise {self.noise:.2g})"
        return "equal"


def agreement(
    model: Any, prompts: Sequence[Sequence[int]], said: Sequence[Reply], *, ends: Collection[int], new_tokens: int
) -> Agreement:
    """Compare a stack's replies with a model of transformers.

    Args:
        model: in float32.
        prompts: token ids.
        said: the stack's reply to each.
        ends: tokens at which a text ends.
        new_tokens: how many were asked for.
    """
    places: list[Place] = []
    misread, stopped = 0, 0
    for prompt, reply in zip(prompts, said, strict=True):
        misread += reply.read is not None and list(reply.read) != list(prompt)
        rows = logits(model, prompt, reply.tokens)
        for row, token, top in zip(rows[:-1], reply.tokens, reply.top, strict=True):
            margin = float(row.max() - row[token])
            places.append(Place(margin=margin, error=_error(row, top)))
        ended = bool(reply.tokens) and reply.tokens[-1] in ends
        if not ended and len(reply.tokens) < new_tokens and int(rows[-1].argmax()) not in ends:
            stopped += 1
    return Agreement(places=places, misread=misread, stopped=stopped)


def logits(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """What a model says at each place of a reply, and behind it: (tokens + 1, vocabulary) float64."""
    # Of a model without something that depends on where the prompt ends (`suspects.py`).
    masks = getattr(model, "masks", None)
    more = {"attention_mask": masks(len(prompt), len(prompt) + len(tokens))} if masks else {}
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[*prompt, *tokens]]), **more).logits[0, len(prompt) - 1 :].double()
    return found


def _error(row: torch.Tensor, top: Sequence[tuple[int, float]] | None) -> float | None:
    if top is None:
        return None
    (first, first_at), (second, second_at) = top
    return abs((first_at - second_at) - float(row[first] - row[second]))
