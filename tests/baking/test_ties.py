"""Whether embeddings are tied is what transformers makes of config and checkpoint together, whatever the config."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from tests.helpers.families import save_family
from tests.helpers.family_models import hooked_logits, load, logits, rows
from weight_edit.adapters.adapter import adapter
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.names import names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.disk.ties import KEY, as_loaded, untied, with_values
from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.anatomy.narrow.small import build, narrow_model
from weight_edit.anatomy.narrow.towers import text_levels
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.inspection.inspect import inspect
from weight_edit.runtime.loading import Model
from weight_edit.verification.verify import verify

TYPES = (
    "cohere_compass",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "glmasr",
    "granite_speech",
    "granite_speech_plus",
    "hyperclovax_vision_v2",
    "internvl",
    "janus",
    "kimi_k25",
    "lighton_ocr",
    "minicpm_ocr",
    "mistral3",
    "moss_transcribe_diarize",
    "ovis2",
    "qwen2_5_omni_thinker",
    "qwen3_vl_moe",
)
"""Types whose class has another default for the whole config than for its text part."""
HEADS = ("absent", "equal", "different", "alone")
SAID = (None, True, False)


def at(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key] if isinstance(config, dict) else getattr(config, key)
    return config


def written(kind: str, folder: Path, said: tuple[bool | None, ...], head: str) -> Path:
    """A narrow model of a type whose config says what is given on each level, and its checkpoint holds a head so."""
    config = copy.deepcopy(sample(kind))
    levels = text_levels(config)
    for level in levels:
        setattr(at(config, level), KEY, False)
    model: Any = narrow_model(config)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    ends = {}
    for end, module in (("head", model.get_output_embeddings()), ("embedding", model.get_input_embeddings())):
        (ends[end],) = (name for name, value in tensors.items() if torch.equal(value, module.weight.detach()))
    if head == "absent":
        del tensors[ends["head"]]
    elif head == "equal":
        tensors[ends["head"]] = tensors[ends["embedding"]].clone()
    elif head == "alone":
        del tensors[ends["embedding"]]
    save_file(tensors, path, metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for level, value in zip(levels, said, strict=True):
        at(written, level).pop(KEY, None)
        if value is not None:
            at(written, level)[KEY] = value
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


def loaded(folder: Path) -> tuple[bool, set[str]]:
    """Whether `from_pretrained` gives a model whose two ends are one tensor, and what it misses in the checkpoint."""
    config = AutoConfig.from_pretrained(folder)
    model, info = from_pretrained(folder, config, dtype=torch.float32, output_loading_info=True)
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight, set(info["missing_keys"])


def decided(folder: Path, anatomies: dict[str, Any], kind: str) -> bool:
    """The same from the files; the anatomy of a type is found once, but for what its config says of ties."""
    config = AutoConfig.from_pretrained(folder)
    model: Any = build(config, device="meta")
    if kind not in anatomies:
        anatomies[kind] = anatomy_of(config)
    ties = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    anatomy = replace(anatomies[kind], tied=ties)
    checkpoint = Checkpoint.open(folder)
    disk = names_on_disk(anatomy, resolve(model, Stored.of(checkpoint.tensors)))
    return as_loaded(anatomy, checkpoint, disk).tied


def agree(folder: Path, anatomies: dict[str, Any], kind: str) -> None:
    tied, missing = loaded(folder)
    if missing:
        with pytest.raises(UnsupportedError, match="the checkpoint has no tensor"):
            decided(folder, anatomies, kind)
    else:
        assert decided(folder, anatomies, kind) is tied


@pytest.mark.parametrize("kind", TYPES)
def test_a_silent_config_ties_as_the_loader_does(kind: str, tmp_path: Path) -> None:
    anatomies: dict[str, Any] = {}
    levels = text_levels(sample(kind))
    assert len(levels) > 1
    defaults = {bool(getattr(at(AutoConfig.for_model(kind), level), KEY, False)) for level in levels}
    assert defaults == {True, False}
    for head in HEADS:
        agree(written(kind, tmp_path / head, (None,) * len(levels), head), anatomies, kind)


@pytest.mark.parametrize(
    "kind", ["internvl", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("cohere_compass", "mistral3"))]
)
@pytest.mark.parametrize("whole", SAID)
@pytest.mark.parametrize("part", SAID)
def test_every_combination_of_levels_and_heads_ties_as_the_loader_does(
    kind: str, whole: bool | None, part: bool | None, tmp_path: Path
) -> None:
    anatomies: dict[str, Any] = {}
    for head in HEADS:
        agree(written(kind, tmp_path / head, (whole, part), head), anatomies, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_a_head_of_its_own_under_a_silent_config_is_left_alone(kind: str, tmp_path: Path) -> None:
    """Such a checkpoint was refused with "config.json ties ...", which it does not."""
    levels = text_levels(sample(kind))
    base = written(kind, tmp_path / "base", (None,) * len(levels), "different")
    width = anatomy_of(AutoConfig.from_pretrained(base)).d_model
    options = {"projector": "partial"} if inspect(base).anatomy.unknown else {}
    result = bake(base, rows(1, width), tmp_path / "out", **options)
    assert result.complete
    assert not inspect(base).anatomy.tied
    config = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    ties = any(getattr(at(AutoConfig.for_model(kind), level), KEY, False) for level in levels[:1])
    if ties:
        assert [at(config, level)[KEY] for level in levels] == [False] * len(levels)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    heads = [name for name in before if "lm_head" in name]
    assert heads
    assert all(torch.equal(before[name], after[name]) for name in heads)
    assert not loaded(tmp_path / "out")[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("cohere_compass", "qwen3_vl_moe")])
def test_untying_says_so_on_every_level(kind: str, tmp_path: Path) -> None:
    levels = text_levels(sample(kind))
    base = written(kind, tmp_path / "base", (True,) * len(levels), "absent")
    found = inspect(base).anatomy
    options = {"projector": "partial"} if found.unknown else {}
    bake(base, rows(1, found.d_model), tmp_path / "out", embeddings="untie", **options)
    config = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    assert [at(config, level)[KEY] for level in levels] == [False] * len(levels)
    assert loaded(tmp_path / "out") == (False, set())


def apart(folder: Path, family: str = "llama") -> Path:
    """A model whose config ties what its checkpoint holds with different numbers."""
    save_family(family, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, KEY: True}), encoding="utf-8")
    return folder


def test_find_evaluate_and_verify_take_a_head_that_the_config_ties_as_its_own(tmp_path: Path) -> None:
    from weight_edit.runtime import loading

    base = apart(tmp_path / "base")
    model = load(base)
    assert not Model.from_parts(model, None).anatomy.tied
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert loading.load("organism").anatomy.tied is False


@pytest.mark.parametrize("options", [{}, {"kind": "reflect", "at": (1,), "embeddings": "untie"}])
def test_a_config_that_ties_what_the_checkpoint_holds_apart(options: dict[str, Any], tmp_path: Path) -> None:
    base = apart(tmp_path / "base")
    bake(base, rows(2), tmp_path / "out", **options)
    edited = load(tmp_path / "out")
    assert edited.config.tie_word_embeddings is False
    if not options:
        assert (logits(edited) - hooked_logits(load(base), rows(2), embeddings="untie")).abs().max() < 1e-4
        assert torch.equal(edited.get_output_embeddings().weight, load(base).get_output_embeddings().weight)
    assert verify(base, tmp_path / "out", weights_only=True).passed


def test_an_adapter_of_such_a_model_holds_through_merging(tmp_path: Path) -> None:
    from peft import PeftModel

    base = apart(tmp_path / "base")
    bake(base, rows(2), tmp_path / "out")
    result = adapter(base, rows(2), tmp_path / "lora")
    assert result.whole == ()
    merged = PeftModel.from_pretrained(load(base), str(tmp_path / "lora")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for model in (merged, load(tmp_path / "merged")):
        assert (logits(model) - logits(load(tmp_path / "out"))).abs().max() < 1e-4


def test_an_embedding_that_is_stored_under_the_head_s_name(tmp_path: Path) -> None:
    base = save_family("llama-tied", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    bake(base, rows(2), tmp_path / "out")
    assert (logits(load(tmp_path / "out")) - hooked_logits(load(base), rows(2))).abs().max() < 1e-4
    with pytest.raises(UnsupportedError, match=r"stores the embedding under the name.*both.* or skip"):
        bake(base, rows(2), tmp_path / "other", embeddings="untie")


def test_two_dtypes_are_refused_with_the_reason(tmp_path: Path) -> None:
    base = apart(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.bfloat16)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="depends on the reader"):
        bake(base, rows(2), tmp_path / "out")


def test_a_head_that_is_missing_and_not_tied_is_said_to_be_so(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"no tensor 'lm_head.weight'.*does not tie.*tie_word_embeddings"):
        bake(base, rows(2), tmp_path / "out")


def test_where_the_embedding_is_missing_too_the_layout_is_what_is_not_understood(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    tensors = {f"other.{name}": values for name, values in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="layout on disk is not understood"):
        bake(base, rows(2), tmp_path / "out")


def test_values_are_set_on_every_level_that_a_config_has() -> None:
    config = {"a": 1, "text_config": {"b": 2}}
    levels = ((), ("text_config",), ("text_config", "inner"))
    changes = untied(config, levels)
    assert changes == {(KEY,): False, ("text_config", KEY): False}
    assert with_values(config, {**changes, ("text_config", "c"): 3, ("new", "d"): 4}) == {
        KEY: False,
        "text_config": {"b": 2, KEY: False, "c": 3},
        "new": {"d": 4},
    }
    assert config == {"a": 1, "text_config": {"b": 2}}


def test_what_else_changes_in_a_nested_config_is_noticed(tmp_path: Path) -> None:
    """Of a nested config that an edit changes, every other entry must stay."""
    from weight_edit.checkpoint.integrity.config_and_index import config_problems

    for name, text in (("base", {"a": 1}), ("good", {"a": 1, KEY: False}), ("bad", {"a": 2, KEY: False})):
        save_family("llama", tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "text_config": text}), encoding="utf-8")
    base, good, bad = (Checkpoint.open(tmp_path / name) for name in ("base", "good", "bad"))
    wanted = {"text_config": {"a": 1, KEY: False}}
    assert config_problems(base, good, wanted) == []
    assert config_problems(base, bad, wanted) == ["config.json: the key 'text_config' is not what the edit makes of it"]
    assert len(config_problems(base, base, wanted)) == 1
