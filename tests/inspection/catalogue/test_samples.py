"""Samples of decoder families: they build, run in sane size, go through the disk, and show what the family has."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.committed_verdicts import DECODERS, there
from tests.helpers.samples_run import composite, ids, run
from weight_edit.anatomy.narrow.small import build, narrow_model, randomise
from weight_edit.errors import UsageError
from weight_edit.inspection.catalogue.few_layers import few_layers
from weight_edit.inspection.catalogue.samples import published_config, sample_config, variants

# Every kind of block, norm, mixer and feed-forward part, then others by no rule but to make up a third.
FAMILIES = (
    "llama", "qwen3", "gpt2", "gptj", "gpt_neo", "gpt_neox", "falcon", "bloom", "opt", "phi", "phi3", "cohere2", "mpt",
    "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "olmo2", "olmo_hybrid", "exaone4", "glm4", "nemotron",
    "granite", "granitemoehybrid", "minicpm3", "mixtral", "gpt_oss", "dbrx", "qwen2_moe", "aria_text", "llama4_text",
    "deepseek_v2", "deepseek_v3", "deepseek_v4", "longcat_flash", "kimi_linear", "minimax", "mamba", "mamba2", "jamba",
    "bamba", "falcon_h1", "nemotron_h", "zamba", "zamba2", "qwen3_next", "qwen3_5_text", "qwen4_exp_text", "lfm2_moe",
    "recurrent_gemma", "rwkv", "xlstm", "hrm_text", "inkling2_text", "dots3_note_text", "ctrl", "xglm", "stablelm",
)  # fmt: skip
CASES = [(family, variant) for family in FAMILIES for variant in (None, *variants(family))]
MIXTURES = ("mixtral", "gpt_oss", "qwen2_moe", "deepseek_v3", "deepseek_v4", "longcat_flash", "minimax", "lfm2_moe")


@pytest.mark.families
@pytest.mark.parametrize(("family", "variant"), CASES)
def test_a_sample_runs_and_goes_through_the_disk(family: str, variant: str | None) -> None:
    there(family)
    ran = run(family, variant)
    assert ran.logits.shape[:2] == (2, 32)
    assert bool(torch.isfinite(ran.logits).all())
    assert 0.01 < float(ran.logits.std()) < 30
    assert ran.largest < 300
    assert ran.differs < 1e-5
    assert ran.config.hidden_size == 64
    assert sum(parameter.numel() for parameter in ran.model.parameters()) < 2_000_000
    for name, parameter in ran.model.named_parameters():
        assert parameter.numel() == 1 or float(parameter.detach().std()) > 0, name


@pytest.mark.families
@pytest.mark.parametrize("kind", DECODERS)
def test_few_layers_show_every_kind_and_leave_the_config_alone(kind: str) -> None:
    there(kind)
    real = published_config(kind)
    before = real.to_json_string()
    few = few_layers(real)
    assert real.to_json_string() == before
    if composite(real):
        return
    assert few.num_hidden_layers <= 24
    for key in ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types"):
        whole, cut = getattr(real, key, None), getattr(few, key, None)
        if isinstance(whole, list):
            assert set(cut) == set(whole), key
            assert len(cut) == few.num_hidden_layers // (2 if kind == "longcat_flash" else 1), key


def test_shared_keys_and_values_still_occur() -> None:
    few = few_layers(published_config("gemma3n_text"))
    own = few.num_hidden_layers - few.num_kv_shared_layers
    assert few.num_kv_shared_layers == 2
    assert set(few.layer_types[own:]) == set(few.layer_types[:own]) == {"sliding_attention", "full_attention"}
    assert set(few.activation_sparsity_pattern) == {0.0, 0.95}


def test_overrides_of_single_layers_follow_them() -> None:
    few = few_layers(published_config("gemma4_text"))
    heads = [layer.head_dim for layer in few.per_layer_config]
    assert heads == [512 if kind == "full_attention" else 256 for kind in few.layer_types]
    narrow = [layer.head_dim for layer in sample_config("gemma4_text").per_layer_config]
    assert narrow == [32 if kind == "full_attention" else 24 for kind in few.layer_types]


def test_lists_of_indices_and_leading_layers_are_cut_to_fit() -> None:
    real = published_config("bamba")
    real.num_hidden_layers, real.attn_layer_indices = 32, [9, 18, 27]
    few = few_layers(real)
    assert (few.num_hidden_layers, few.attn_layer_indices) == (3, [2])
    real = published_config("deepseek_v3")
    few = few_layers(real)
    assert (few.num_hidden_layers, few.first_k_dense_replace) == (4, 3)


@pytest.mark.parametrize("family", MIXTURES)
def test_every_expert_gets_tokens(family: str) -> None:
    model: Any = narrow_model(few_layers(published_config(family)))
    logits: Tensor = model(input_ids=ids(), use_cache=False).logits
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    experts = {
        name: p.grad for name, p in model.named_parameters() if p.ndim == 3 and name.endswith("experts.down_proj")
    }
    assert experts
    for name, gradient in experts.items():
        assert gradient is not None
        assert all(bool(expert.any()) for expert in gradient), name


def test_stored_scales_are_random_and_near_their_own() -> None:
    model = build(sample_config("gemma4_text"))
    randomise(model, 3)
    scales = [float(buffer) for name, buffer in model.named_buffers() if name.endswith("layer_scalar")]
    assert len(set(scales)) == len(scales) >= 3
    assert all(0.4 <= scale <= 1.6 and scale != 1 for scale in scales)


def test_tables_that_follow_from_the_config_stay() -> None:
    model = build(sample_config("minimax"))
    decay = {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith("diagonal_decay")}
    randomise(model, 0)
    assert decay
    assert all(torch.equal(model.get_buffer(name), before) for name, before in decay.items())


def test_a_seed_gives_the_same_model_again() -> None:
    torch.manual_seed(1)
    first = narrow_model(sample_config("qwen3_next"), seed=5).state_dict()
    torch.manual_seed(2)
    second = narrow_model(sample_config("qwen3_next"), seed=5).state_dict()
    third = narrow_model(sample_config("qwen3_next"), seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in first)


def test_factors_of_published_models_are_not_one() -> None:
    granite = sample_config("granite")
    assert 1.0 not in (granite.embedding_multiplier, granite.residual_multiplier, granite.logits_scaling)
    assert 1.0 not in sample_config("falcon_h1").ssm_multipliers


def test_unknown_types_and_variants_are_refused() -> None:
    with pytest.raises(UsageError, match="no model type 'nonesuch'"):
        sample_config("nonesuch")
    with pytest.raises(UsageError, match=r"no sample variant '7b'; it has: 350m"):
        sample_config("opt", "7b")
