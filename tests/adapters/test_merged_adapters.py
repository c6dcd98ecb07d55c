"""An adapter holds what it says through loading, merging, saving and loading again, on tied and untied families."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tests.helpers.edit_kinds import directions
from tests.helpers.families import FAMILIES, TIED, save_family
from tests.helpers.family_models import ADAPTABLE, IDS, hooked_logits, load, logits, rows
from weight_edit.adapters.adapter import AdapterResult, adapter
from weight_edit.baking.bake import bake, steps_of
from weight_edit.directions.directions import Directions
from weight_edit.errors import UnsupportedError
from weight_edit.runtime.loading import Model
from weight_edit.verification.leak import stream_leak

EVERY = tuple(dict.fromkeys((*FAMILIES, *TIED, *ADAPTABLE, "gptj", "gptj-tied")))


def leak(model: Any, directions: Directions) -> float:
    return stream_leak(Model.from_parts(model, None), directions.direction, IDS.tolist()).worst


def written(family: str, folder: Path, mode: str, **options: Any) -> AdapterResult:
    """A model of a family in `base`, the edit baked in `out`, and as an adapter in `lora`."""
    save_family(family, folder / "base")
    bake(folder / "base", rows(2), folder / "out", embeddings=mode, **options)
    return adapter(folder / "base", rows(2), folder / "lora", embeddings=mode, **options)


def adapted(folder: Path) -> Any:
    return PeftModel.from_pretrained(load(folder / "base"), str(folder / "lora")).eval()


def saved_and_loaded(model: Any, folder: Path) -> PreTrainedModel:
    model.save_pretrained(folder)
    return load(folder)


@pytest.mark.parametrize("mode", ["both", "untie"])
@pytest.mark.parametrize("family", EVERY)
def test_a_merged_adapter_is_the_baked_model_also_when_it_was_saved(family: str, mode: str, tmp_path: Path) -> None:
    written(family, tmp_path, mode)
    wanted = load(tmp_path / "out")
    merged = adapted(tmp_path).merge_and_unload().eval()
    again = saved_and_loaded(merged, tmp_path / "merged")
    assert leak(load(tmp_path / "base"), rows(2)) > 0.05
    for model in (merged, again):
        assert leak(model, rows(2)) < 1e-5
        assert (logits(model) - logits(wanted)).abs().max() < 1e-4
    assert again.config.tie_word_embeddings == wanted.config.tie_word_embeddings


@pytest.mark.parametrize("mode", ["both", "untie"])
@pytest.mark.parametrize("family", EVERY)
def test_before_merging_nothing_is_left_in_the_stream_and_a_tied_unembedding_is_the_base_s(
    family: str, mode: str, tmp_path: Path
) -> None:
    result = written(family, tmp_path, mode)
    model = adapted(tmp_path)
    assert leak(model.get_base_model(), rows(2)) < 1e-5
    assert (logits(model) - hooked_logits(load(tmp_path / "base"), rows(2), embeddings="untie")).abs().max() < 1e-4
    tied = load(tmp_path / "base").config.tie_word_embeddings
    assert result.whole == (("lm_head",) if tied and mode == "untie" else ())
    assert any("merged" in note and "`embeddings='untie'`" in note for note in result.notes) == (
        tied and mode == "both"
    )
    manifest = json.loads((tmp_path / "lora/weight_edit.json").read_text(encoding="utf-8"))
    assert manifest["notes"] == list(result.notes)
    assert manifest["edit"]["class"] == result.edit_class
    assert "changes with it" not in result.edit_class


@pytest.mark.parametrize("family", TIED)
def test_unmerging_and_switching_off_give_the_base_back(family: str, tmp_path: Path) -> None:
    written(family, tmp_path, "untie")
    model, plain = adapted(tmp_path), logits(load(tmp_path / "base"))
    on = logits(model)
    with model.disable_adapter():
        # Biases that a module has are the adapter's while it is loaded (PEFT's bias="lora_only").
        if family != "gpt2":
            assert (logits(model) - plain).abs().max() < 1e-5
    model.merge_adapter()
    assert (logits(model) - on).abs().max() < 1e-4
    model.unmerge_adapter()
    assert (logits(model) - on).abs().max() < 1e-4


@pytest.mark.parametrize("family", TIED)
@pytest.mark.parametrize("options", [{"strength": 0.4}, {"kind": "reflect"}, {"layers": frozenset({1})}])
def test_what_merging_would_make_another_edit_is_refused_and_untying_holds(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    save_family(family, tmp_path / "base")
    with pytest.raises(UnsupportedError, match=r"tied to the embedding.*`embeddings='untie'`.*skip.*bake"):
        adapter(tmp_path / "base", rows(2), tmp_path / "lora", **options)
    assert not (tmp_path / "lora").exists()

    written(family, tmp_path, "untie", **options)
    model, wanted = adapted(tmp_path), logits(load(tmp_path / "out"))
    assert (logits(model) - wanted).abs().max() < 1e-4
    merged = model.merge_and_unload()
    assert (logits(merged) - wanted).abs().max() < 1e-4
    assert (logits(saved_and_loaded(merged, tmp_path / "merged")) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama-tied", "qwen2-tied"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_reflection_at_one_layer_leaves_the_embedding_when_it_is_merged(
    family: str, layer: int, tmp_path: Path
) -> None:
    result = written(family, tmp_path, "untie", kind="reflect", at=(layer,))
    assert result.whole == ("lm_head",)
    model, wanted = adapted(tmp_path), logits(load(tmp_path / "out"))
    assert (logits(model) - wanted).abs().max() < 1e-4
    again = saved_and_loaded(model.merge_and_unload(), tmp_path / "merged")
    assert (logits(again) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("edit", ["affine", "erase", "add"])
@pytest.mark.parametrize("mode", ["both", "untie"])
def test_constants_in_a_tied_embedding_hold_through_merging(edit: str, mode: str, tmp_path: Path) -> None:
    save_family("llama-tied", tmp_path / "base")
    options = {"at": (0,)} if edit == "add" else {"options": {"enter": "embedding"}}
    steps = steps_of(directions(), edit, **options)
    bake(tmp_path / "base", steps, tmp_path / "out", embeddings=mode)
    adapter(tmp_path / "base", steps, tmp_path / "lora", embeddings=mode)
    again = saved_and_loaded(adapted(tmp_path).merge_and_unload(), tmp_path / "merged")
    assert (logits(again) - logits(load(tmp_path / "out"))).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["both", "untie"])
def test_merging_in_a_half_dtype_leaves_only_a_trace(dtype: torch.dtype, mode: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_family("llama-tied", tmp_path / "base", dtype=dtype)
    adapter(tmp_path / "base", rows(1), tmp_path / "lora", embeddings=mode)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    model = PeftModel.from_pretrained(base, str(tmp_path / "lora"))
    assert torch.isfinite(logits(model)).all()
    again = saved_and_loaded(model.merge_and_unload(), tmp_path / "merged")
    assert leak(again, rows(1)) < (2e-2 if dtype == torch.bfloat16 else 4e-3)


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)])
def test_the_command_line_says_what_merging_changes(call: Any, options: tuple[str, ...], tmp_path: Path) -> None:
    save_family("llama-tied", tmp_path / "base")
    rows(1).save(tmp_path / "d.safetensors")
    given = ("--directions", tmp_path / "d.safetensors", "--out", tmp_path / "lora", *options)
    result = call("adapter", tmp_path / "base", *given)
    assert result.code == 0
    said = result.json["notes"][0] if "--json" in options else result.out if options else result.err
    assert "`embeddings='untie'` stores it whole" in " ".join(said.split())


def test_peft_s_own_tying_would_merge_twice(tmp_path: Path) -> None:
    """Why `ensure_weight_tying` is off. Where this fails, PEFT has mended it, and the unembedding can be adapted."""
    written("llama-tied", tmp_path, "both")
    path = tmp_path / "lora/adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["ensure_weight_tying"] is False
    path.write_text(json.dumps({**config, "ensure_weight_tying": True}), encoding="utf-8")
    assert leak(adapted(tmp_path).merge_and_unload(), rows(2)) > 0.05


def test_an_adapter_that_cannot_be_merged_says_so_before(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    result = adapter(tmp_path / "base", directions(), tmp_path / "lora", kind="affine", embeddings="skip")
    assert any("cannot merge" in note for note in result.notes)


def test_a_module_that_shares_its_weight_with_another_is_refused(tmp_path: Path) -> None:
    """Merging would add to a tensor what only one of its two modules had before."""
    from weight_edit.adapters.limits import check_shared

    model = load(save_family("llama", tmp_path / "base"))
    config = {"target_modules": ["model.layers.0.mlp.down_proj"], "target_parameters": None, "modules_to_save": None}
    check_shared(model, config, "model.embed_tokens.weight")
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    with pytest.raises(UnsupportedError, match=r"layers.0.*layers.2.*one tensor.*use bake"):
        check_shared(model, config, "model.embed_tokens.weight")
    with pytest.raises(UnsupportedError, match=r"would store 'model'"):
        check_shared(
            model,
            {"target_modules": [], "target_parameters": None, "modules_to_save": ["del"]},
            "model.embed_tokens.weight",
        )
