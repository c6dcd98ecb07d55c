"""Prompts that a small random model tells apart, for lack of one that refuses."""

from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest
import torch

from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.loading import Model, load

VERBS = ["make", "paint", "cut", "steal"]
THINGS = ["bread", "cars", "a", "red", "blue", "house", "way", "here"]
ENDS = ["sure", "to me", "to me the red way"]


@dataclass(frozen=True)
class Behaviour:
    """A model, tokens that count as its refusals, and prompts that it does and does not begin them on."""

    model: Model
    tokens: list[int]
    target: PromptSet
    baseline: PromptSet


def find_behaviour(model: Model) -> Behaviour:
    """Try random halves of the vocabulary until one divides the prompts well."""
    chat_format = ChatFormat(model.tokenizer)
    # Of several lengths, so that padding and learned positions matter.
    prompts = [" ".join(words) for words in product(VERBS, THINGS, THINGS, ENDS)]
    logprobs = next_token_logprobs(model, [chat_format.encode(prompt) for prompt in prompts])
    for seed in range(200):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
        tokens = sorted(order[:24].tolist())
        metric = refusal_metric(logprobs, tokens)
        if (metric > 0.05).sum() > 60 and (metric < -0.05).sum() > 60:
            chosen = partial(zip, prompts, metric.tolist())
            target = PromptSet.of("begun", [prompt for prompt, value in chosen() if value > 0.05])
            baseline = PromptSet.of("not begun", [prompt for prompt, value in chosen() if value < -0.05])
            return Behaviour(model, tokens, target, baseline)
    raise AssertionError("no half of the vocabulary divides the prompts")


@pytest.fixture(scope="session")
def behaviour(small_model):
    """`behaviour(family)`, computed once."""
    made = {}

    def get(family: str) -> Behaviour:
        if family not in made:
            made[family] = find_behaviour(small_model(family))
        return made[family]

    return get


@pytest.fixture(scope="session")
def organism() -> Model:
    """The embedded model, which tests leave as it is."""
    return load("organism", dtype="float32")
