"""Hook = weights = adapter, and nothing left in the stream, through the disk, on every supported family."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.helpers.families import FAMILIES, KINDS, TIED, save_family
from tests.helpers.family_models import ADAPTABLE, IDS, hooked_logits, load, logits, rows
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.errors import UnsupportedError
from weight_edit.runtime.loading import Model
from weight_edit.verification.leak import stream_leak

CASES = [(family, "both") for family in FAMILIES] + [(family, mode) for family in TIED for mode in ("both", "untie")]


@pytest.mark.parametrize(("family", "mode"), sorted(set(CASES)))
@pytest.mark.parametrize("k", [1, 3])
def test_hook_weights_and_adapter_agree(family: str, mode: str, k: int, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(k)
    result = bake(tmp_path / "base", directions, tmp_path / "out", embeddings=mode)
    assert result.complete
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    plain, wanted, given = logits(base), hooked_logits(base, directions, embeddings=mode), logits(edited)
    assert (wanted - plain).abs().max() > 0.05, "the edit must do something for the comparison to mean anything"
    assert (given - wanted).abs().max() < 1e-4

    leak = stream_leak(Model.from_parts(edited, None), directions.direction, IDS.tolist())
    before = stream_leak(Model.from_parts(base, None), directions.direction, IDS.tolist())
    assert before.worst > 0.05
    assert leak.worst < 1e-5

    adapter(tmp_path / "base", directions, tmp_path / "lora", embeddings=mode)
    # Until it is merged, a tied unembedding is the base's in both modes, see tests/publish/test_merged_adapters.py.
    wanted = hooked_logits(base, directions, embeddings="untie")
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "lora")).eval()
    assert (logits(adapted) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("family", KINDS)
def test_every_other_kind_is_complete_and_agrees_with_its_hooks(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(2)
    result = bake(tmp_path / "base", directions, tmp_path / "out")
    assert result.complete
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    wanted = hooked_logits(base, directions)
    assert (wanted - logits(base)).abs().max() > 0.05
    assert (logits(edited) - wanted).abs().max() < 1e-4
    assert stream_leak(Model.from_parts(base, None), directions.direction, IDS.tolist()).worst > 0.05
    assert stream_leak(Model.from_parts(edited, None), directions.direction, IDS.tolist()).worst < 1e-5


@pytest.mark.parametrize("family", KINDS)
def test_an_adapter_of_every_other_kind_agrees_or_is_refused_by_name(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(2)
    if family not in ADAPTABLE:
        with pytest.raises(UnsupportedError, match="use bake"):
            adapter(tmp_path / "base", directions, tmp_path / "lora")
        assert not (tmp_path / "lora").exists()
        return
    adapter(tmp_path / "base", directions, tmp_path / "lora")
    base = load(tmp_path / "base")
    wanted = hooked_logits(base, directions)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "lora")).eval()
    assert (logits(adapted) - wanted).abs().max() < 1e-4


def test_experts_are_edited_one_by_one_where_they_lie(tmp_path: Path) -> None:
    save_family("mixtral", tmp_path / "base")
    result = bake(tmp_path / "base", rows(1), tmp_path / "out")
    experts = [name for name in result.tensors if "experts" in name]
    assert len(experts) > 8
    assert all(name.endswith((".w2.weight", ".down_proj.weight")) for name in experts)


@pytest.mark.parametrize("family", TIED)
def test_skip_leaves_the_embedding_alone_and_hooks_agree(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(2)
    result = bake(tmp_path / "base", directions, tmp_path / "out", embeddings="skip")
    assert not result.complete
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    assert torch.equal(base.get_input_embeddings().weight, edited.get_input_embeddings().weight)
    assert (logits(edited) - hooked_logits(base, directions, embeddings="skip")).abs().max() < 1e-4


@pytest.mark.parametrize("family", TIED)
def test_untie_writes_the_base_unembedding_and_says_so_in_the_config(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    result = bake(tmp_path / "base", rows(1), tmp_path / "out", embeddings="untie")
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    assert result.added == ("lm_head.weight",)
    assert edited.config.tie_word_embeddings is False
    assert torch.equal(edited.get_output_embeddings().weight, base.get_output_embeddings().weight)
    assert not torch.equal(edited.get_input_embeddings().weight, edited.get_output_embeddings().weight)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("options", [{"strength": 0.5}, {"strength": 2.0}, {"layers": frozenset({1})}])
def test_partial_edits_agree_with_their_hooks(family: str, options: dict, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(2)
    result = bake(tmp_path / "base", directions, tmp_path / "out", **options)
    assert not result.complete
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    assert (logits(edited) - hooked_logits(base, directions, **options)).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_the_merged_adapter_is_the_baked_model(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    directions = rows(2)
    mode = "untie" if family == "gpt2" else "both"
    bake(tmp_path / "base", directions, tmp_path / "out", embeddings=mode)
    adapter(tmp_path / "base", directions, tmp_path / "lora", embeddings=mode)
    merged = PeftModel.from_pretrained(load(tmp_path / "base"), str(tmp_path / "lora")).merge_and_unload().eval()
    edited = load(tmp_path / "out")
    for name, parameter in edited.named_parameters():
        assert (merged.get_parameter(name) - parameter).abs().max() < 1e-5, name


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_projecting_by_v_itself_leaks_through_a_norm(family: str, tmp_path: Path) -> None:
    """Why post-norm blocks need the gain-weighted direction: the naive projection leaves a large component."""
    from weight_edit.anatomy.derive import anatomy_of
    from weight_edit.edits.projection import ablation

    save_family(family, tmp_path / "base")
    naive = load(tmp_path / "base")
    directions = rows(1).direction
    with torch.no_grad():
        for writer in anatomy_of(naive.config).writers:
            weight = naive.get_parameter(writer.weight)
            weight.copy_(ablation(directions).linear.on_stored(weight, writer.axis))
    assert stream_leak(Model.from_parts(naive, None), directions, IDS.tolist()).worst > 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_a_half_dtype_leaves_only_a_trace(dtype: torch.dtype, tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base", dtype=dtype)
    directions = rows(1)
    bake(tmp_path / "base", directions, tmp_path / "out")
    edited = load(tmp_path / "out")
    leak = stream_leak(Model.from_parts(edited, None), directions.direction, IDS.tolist()).worst
    assert leak < (1e-2 if dtype == torch.bfloat16 else 2e-3)


def test_a_checkpoint_saved_from_the_backbone_alone(tmp_path: Path) -> None:
    """The original GPT-2 on the Hub has names without the prefix `transformer.`."""
    from safetensors.torch import load_file, save_file

    save_family("gpt2", tmp_path / "base")
    path = tmp_path / "base/model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    directions = rows(1)
    result = bake(tmp_path / "base", directions, tmp_path / "out")
    assert "wte.weight" in result.tensors
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    assert (logits(edited) - hooked_logits(base, directions)).abs().max() < 1e-4


def test_a_sharded_checkpoint(tmp_path: Path) -> None:
    save_family("qwen2", tmp_path / "base", max_shard_size="100KB")
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 1
    directions = rows(1)
    bake(tmp_path / "base", directions, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    base, edited = load(tmp_path / "base"), load(tmp_path / "out")
    assert (logits(edited) - hooked_logits(base, directions)).abs().max() < 1e-4


def test_quantised_weights_are_refused_by_name(tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    from weight_edit.errors import UsageError

    save_family("llama", tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text(encoding="utf-8"))
    quantised = {**config, "quantization_config": {"quant_method": "aqlm", "bits": 4}}
    (tmp_path / "base/config.json").write_text(json.dumps(quantised), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="AQLM"):
        bake(tmp_path / "base", rows(1), tmp_path / "out")

    (tmp_path / "base/config.json").write_text(json.dumps(config), encoding="utf-8")
    path = tmp_path / "base/model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=rf"{name}.*F8_E4M3"):
        bake(tmp_path / "base", rows(1), tmp_path / "out")
    assert not (tmp_path / "out").exists()
