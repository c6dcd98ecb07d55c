"""Safety tuning against a single direction: long refusals, and ablation during training.

Long refusals spread the decision over many tokens (arXiv 2505.19056). A model as small as this one still writes it
along one direction, so in part of the steps the difference of means, as a finder would take it from the weights of
the moment, is ablated from the whole stream; what the model learns there refuses without it.
"""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.organism.corpus import Request, prompt_set
from weight_edit.organism_training.long_refusals import long_refusal
from weight_edit.organism_training.stages import Rows
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import all_points

POSITIONS = 4
"""The number of last prompt positions at which an ablated difference is taken."""


class LongRefusalRows(Rows):
    """Rows as in stage 2, with long refusals instead of short ones."""

    def _refusal(self, request: Request) -> str:
        return super()._refusal(request) if request.category is None else long_refusal(request, self.rng)


def under_ablation(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    *,
    share: float,
    refresh: int = 25,
) -> Callable[[int], AbstractContextManager[object]]:
    """A function from a training step to its context: at times, the ablation of a difference.

    Args:
        share: of the steps are under ablation, each of one difference, of any layer and position, at most.
        refresh: steps after which the differences are taken anew.
    """
    wrapped = Model.from_parts(model, tokenizer)
    chat = ChatFormat(tokenizer)
    refused, ordinary = (
        [chat.encode(request.prompt) for request in prompt_set(name, "train")] for name in ("refused", "answered")
    )
    positions = tuple(range(-POSITIONS, 0))
    points = all_points(wrapped)
    differences = torch.empty(POSITIONS, len(points), wrapped.anatomy.d_model)

    def around(step: int) -> AbstractContextManager[object]:
        nonlocal differences
        if step % refresh == 0:
            read = [residuals(wrapped, some, points, positions, description=None) for some in (refused, ordinary)]
            differences = read[0].mean(dim=0) - read[1].mean(dim=0)
            model.train()
        if rng.random() >= share:
            return nullcontext()
        # The last position is where finders find the strongest: half of the time it is that one.
        position = -1 if rng.random() < 0.5 else int(rng.random() * POSITIONS)
        row = differences[position, int(rng.random() * len(points))]
        # Where every prompt has the same token, the stream begins the same, and rounding has no direction.
        if row.norm() < 1e-3 * differences.norm(dim=-1).max():
            return nullcontext()
        return hooked(model, ablation_hooks(wrapped, (row / row.norm())[None]))

    return around
