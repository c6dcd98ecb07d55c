"""Greedy tokens of a stack held to transformers' own, near-ties judged by the stack's own noise on the base.

Transformers reads each prompt with the stack's own tokens behind it, so that every place is compared, those behind a
first difference too. Where its most probable token is another than the stack's, its margin is the difference of their
logits. The noise of a stack is the largest difference between its own and transformers' margin of the two tokens that
it finds most probable, over all places of the base: what a margin may be off by without any edit. A noise as large as
half of transformers' margins excuses nothing: then the stack computes another model.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stacks.replies import Reply


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a stack's greedy tokens compare with transformers'.

    Attributes:
        places: how many tokens were compared.
        margins: transformers' margin, in nats, at each place where it finds another token more probable.
        noise: the largest difference of the margins of the stack's two best tokens.
        typical: the median of transformers' margins between its own two best tokens.
        misread: how many prompts the stack divides into other tokens.
        stopped: how many replies ended where transformers does not end.
    """

    places: int
    margins: Sequence[float]
    noise: float
    typical: float
    misread: int
    stopped: int

    def holds(self, noise: float) -> bool:
        """Whether all that differs is within a stack's noise, and nothing ended early."""
        if self.stopped or (self.margins and noise >= self.typical):
            return False
        return all(margin <= noise for margin in self.margins)

    def verdict(self, noise: float) -> str:
        """In words: `equal`, `equal but for near-ties`, or how much differs."""
        if self.stopped:
            return f"ended early in {self.stopped}"
        if not self.margins:
            return "equal"
        worst = max(self.margins)
        if self.holds(noise):
            return (
                f"equal but for {len(self.margins)} near-ties of {self.places} (margin {worst:.1e}, noise {noise:.1e})"
            )
        return f"**{len(self.margins)} of {self.places} differ** (margin {worst:.2g}, noise {noise:.1e})"


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
    margins: list[float] = []
    own: list[float] = []
    noise, misread, stopped, places = 0.0, 0, 0, 0
    for prompt, reply in zip(prompts, said, strict=True):
        ids = list(reply.read) if reply.read is not None else list(prompt)
        misread += ids != list(prompt)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *reply.tokens]])).logits[0, len(prompt) - 1 :].double()
        for row, token, top in zip(logits, reply.tokens, reply.top, strict=False):
            places += 1
            own.append(float(row.topk(2).values.diff().abs()))
            if (margin := float(row.max() - row[token])) > 0:
                margins.append(margin)
            if len(top) == 2:
                (first, first_at), (second, second_at) = top
                noise = max(noise, abs((first_at - second_at) - float(row[first] - row[second])))
        ended = bool(reply.tokens) and reply.tokens[-1] in ends
        if not ended and len(reply.tokens) < new_tokens and int(logits[len(reply.tokens)].argmax()) not in ends:
            stopped += 1
    return Agreement(
        places=places,
        margins=margins,
        noise=noise,
        typical=float(torch.tensor(own).median()) if own else 0.0,
        misread=misread,
        stopped=stopped,
    )
