"""What the model says under some edits, prompt by prompt."""

from collections.abc import Sequence
from dataclasses import replace

from weight_edit.evaluation.evaluate import Answer, evaluate
from weight_edit.prompts import PromptSet
from weight_edit.runtime import Hook, hooked
from weight_edit.studies.lab import Lab


def answers_of(
    lab: Lab, prompts: PromptSet, hooks: Sequence[Hook] = (), *, max_new_tokens: int | None = None
) -> tuple[Answer, ...]:
    """The greedy answer to each prompt with its verdict, and nothing that costs more.

    Raises:
        UsageError: there are no prompts, or one is too long.
    """
    # Without known answers there is no loss to compute.
    asked = replace(prompts, answers=(None,) * len(prompts))
    with hooked(lab.model.model, hooks):
        found = evaluate(
            lab.model,
            refused=asked,
            format=lab.format,
            max_new_tokens=max_new_tokens or lab.max_new_tokens,
            batch_size=128,
        )
    return found.answers


def joined(sets: Sequence[PromptSet], limit: int | None = None) -> PromptSet:
    """Several sets as one, of each at most so many prompts, each prompt once.

    Raises:
        UsageError: there are no prompts at all.
    """
    some = [each.at_most(limit) for each in sets]
    return PromptSet.of(
        " + ".join(each.name for each in some),
        [prompt for each in some for prompt in each.prompts],
        [answer for each in some for answer in each.answers],
        [category for each in some for category in each.categories],
    )
