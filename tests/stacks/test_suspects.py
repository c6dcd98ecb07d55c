"""What a stack drops is named: as few things as explain its replies, and all ways to say so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stacks import comparison
from stacks.small_models import small_model
from stacks.suspects import MODELS, explanations, reference
from transformers import AutoConfig, AutoModelForCausalLM

PROMPT, TOKENS = range(5, 17), range(17, 25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model("Gemma 2", tmp_path_factory.mktemp("suspects") / "base")


def logits(model: Any) -> torch.Tensor:
    return comparison.logits(model, PROMPT, TOKENS)


def test_two_things_that_are_dropped_together_are_named_together(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters["rope_theta"] = 10000.0
    config.final_logit_softcapping = None
    served = logits(AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval())
    found = explanations(folder, lambda model: torch.allclose(logits(model), served, atol=1e-5))
    assert found == ["`rope_parameters` (takes 10000) and soft-capping of logits"]


def test_all_that_agree_alike_are_named_and_nothing_where_none_does(folder: Path) -> None:
    assert explanations(folder, lambda _: True) == [
        "`rope_parameters` (takes 10000)",
        "`layer_types` (takes every sixth as full)",
        "soft-capping of logits",
        "soft-capping of attention",
        "all soft-capping",
        "the sliding window",
        "the sliding window within a prompt",
    ]


def test_a_window_that_is_not_in_the_prompt_is_named_apart_from_one_that_is_nowhere(folder: Path) -> None:
    # What reads a prompt at once and then token by token, each with what its window leaves.
    window, before = 8, len(PROMPT) - 1
    model = reference(folder)
    model.config.sliding_window = 256
    ids, length = torch.tensor([[*PROMPT, *TOKENS]]), len(PROMPT) + len(TOKENS)
    allowed = torch.ones(length, length).tril()
    for row in range(before, length):
        allowed[row, : max(0, row - window + 1)] = 0
    full, near = (each.log()[None, None] for each in (torch.ones(length, length).tril(), allowed))
    with torch.no_grad():
        out = model(ids, attention_mask={"full_attention": full, "sliding_attention": near})
    served = out.logits[0, before:].double()
    found = explanations(folder, lambda other: torch.allclose(logits(other), served, atol=1e-5))
    assert found == ["the sliding window within a prompt"]


def test_nothing_is_named_that_changes_nothing(folder: Path) -> None:
    plain = logits(reference(folder))
    assert explanations(folder, lambda model: torch.equal(logits(model), plain), most=1) == []


@pytest.mark.parametrize(("width", "rounded"), [(640, 25.25), (64, 8.0)])
def test_an_embeddings_scale_is_suspected_where_bfloat16_rounds_it(width: int, rounded: float) -> None:
    embedding = SimpleNamespace(embed_scale=torch.tensor(width**0.5))
    model = SimpleNamespace(get_input_embeddings=lambda: embedding)
    assert MODELS["the embedding's scale (takes it in bfloat16)"](model) == (width == 640)
    assert float(embedding.embed_scale) == rounded
