"""The counted arithmetic of a pass against what torch counts while the real model runs."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.families import family_config
from weight_edit.anatomy.derive import anatomy_with_model
from weight_edit.anatomy.narrow.small import build
from weight_edit.costs import counting
from weight_edit.costs.counting import PassCounts, pass_counts
from weight_edit.costs.model_size import _estimated, model_size
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.samples import sample

DENSE = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "llama-tied", "phi", "olmo2", "bloom")
MIXTURES = ("mixtral", "gpt_oss", "deepseek_v3", "qwen3_moe")
FITTED = 32


def config_of(family: str) -> Any:
    return sample(family) if family in ("qwen3_moe", "llama4_text", "qwen3_next", "mamba2") else family_config(family)


def run(config: Any, length: int) -> tuple[int, int]:
    """FLOPs that torch counts of a sequence through a random model: without the unembedding, and of that alone."""
    torch.manual_seed(0)
    model: Any = build(config)
    ids = torch.randint(3, 20, (1, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    head = next(name for name, each in model.named_modules() if each is model.get_output_embeddings())
    of_head = sum(counter.get_flop_counts()[f"{type(model).__name__}.{head}"].values())
    return counter.get_total_flops() - of_head, of_head


def planned(counts: PassCounts, length: int) -> float:
    return counts.per_token * length + counts.per_pair * length**2


@pytest.mark.parametrize("family", DENSE)
def test_dense_families_are_counted_within_two_percent(family: str) -> None:
    config = config_of(family)
    size = model_size(config, None, length=FITTED)
    assert size.counted
    for length in (19, 47):
        body, head = run(config, length)
        assert planned(size.counts, length) == pytest.approx(body, rel=0.02)
        assert length * size.per_logits == head


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_are_counted_within_five_percent_by_the_experts_that_are_active(family: str) -> None:
    config = config_of(family)
    size = model_size(config, None, length=FITTED)
    assert size.counted
    assert size.expert_bytes
    for length in (19, 47):
        assert planned(size.counts, length) == pytest.approx(run(config, length)[0], rel=0.05)
    inactive = size.parameters - size.active
    assert inactive * size.itemsize > size.expert_bytes


def test_of_a_family_whose_code_runs_every_expert_all_are_counted() -> None:
    """transformers' Llama 4 gives every expert every token, with zeros for those that are not chosen."""
    config = config_of("llama4_text")
    size = model_size(config, None, length=FITTED)
    assert planned(size.counts, 47) == pytest.approx(run(config, 47)[0], rel=0.02)
    assert size.active > 0.9 * size.parameters


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next"])
def test_code_that_asks_for_numbers_is_counted_on_fake_tensors(family: str) -> None:
    config = config_of(family)
    size = model_size(config, None, length=FITTED)
    assert size.counted
    assert planned(size.counts, FITTED) == pytest.approx(run(config, FITTED)[0], rel=0.02)


def test_the_cache_is_that_of_the_heads() -> None:
    config = family_config("llama")
    size = model_size(config, None)
    assert size.counts.kept_per_token == 2 * config.num_key_value_heads * config.head_dim * size.layers
    assert size.counts.kept == 0
    assert sum(size.counts.blocks) == pytest.approx(1)
    assert len(size.counts.blocks) == size.layers


@pytest.mark.parametrize(
    ("family", "within"), [("llama", 0.02), ("gemma2", 0.02), ("mixtral", 0.05), ("gpt_oss", 0.05)]
)
def test_the_estimate_of_what_cannot_be_run_is_near(family: str, within: float) -> None:
    config = config_of(family)
    anatomy, real = anatomy_with_model(config)
    counted = pass_counts(config, anatomy, FITTED)
    estimated = _estimated(config, anatomy, real)
    assert planned(estimated, FITTED) == pytest.approx(planned(counted, FITTED), rel=within)
    if not getattr(config, "sliding_window", None):
        assert estimated.kept_per_token == counted.kept_per_token


def test_a_model_that_cannot_be_run_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: nn.Module, *_: object) -> None:
        raise RuntimeError("asks for numbers")

    monkeypatch.setattr(counting, "_counted", fails)
    config = family_config("llama")
    anatomy, _ = anatomy_with_model(config)
    with pytest.raises(UnsupportedError, match="does not run without numbers: asks for numbers"):
        pass_counts(config, anatomy, FITTED)
    assert not model_size(config, None).counted
