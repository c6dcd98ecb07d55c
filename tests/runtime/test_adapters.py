"""A LoRA adapter on its base is the edit that was baked; what does not fit, or would run code, is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.families import FAMILIES, TIED, save_family
from tests.helpers.family_models import ADAPTABLE, logits, rows
from tests.helpers.family_models import load as plain
from weight_edit.adapters.adapter import adapter
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.baking.bake import bake
from weight_edit.directions.directions import Directions
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation.divergence import divergence
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.hub.source import Source, resolve
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.adapters import with_adapter
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.options import LoadOptions
from weight_edit.runtime.points import Point
from weight_edit.utils import progress

SETS = {"refused": "organism:refused:test", "answered": "organism:answered:test"}


def model_in(folder: Path) -> Model:
    """A family's model, which has no tokenizer."""
    loaded = plain(folder)
    return Model(
        model=loaded, tokenizer=None, anatomy=anatomy_of(loaded.config), source=Source(str(folder), folder, None)
    )


@pytest.mark.parametrize("mode", ["both", "untie"])
@pytest.mark.parametrize("family", tuple(dict.fromkeys((*FAMILIES, *TIED, *ADAPTABLE))))
def test_an_adapter_on_its_base_is_the_baked_model(family: str, mode: str, tmp_path: Path) -> None:
    """Where embeddings are tied, the unembedding goes with the embedding once the adapter is merged, not before."""
    save_family(family, tmp_path / "base")
    bake(tmp_path / "base", rows(2), tmp_path / "out", embeddings="untie")
    adapter(tmp_path / "base", rows(2), tmp_path / "lora", embeddings=mode)
    base = logits(plain(tmp_path / "base"))
    found = with_adapter(model_in(tmp_path / "base"), tmp_path / "lora")
    wanted = logits(plain(tmp_path / "out"))
    assert (logits(found.model) - wanted).abs().max() < 1e-4
    assert (base - wanted).abs().max() > 1e-2
    assert found.vocabulary == wanted.shape[-1]
    assert found.source.public_name == "lora on base"
    moved = divergence(*(each[:, -1].log_softmax(-1) for each in (wanted, logits(found.model))))
    assert moved.mean < 1e-7


@pytest.fixture(scope="module")
def refusal() -> Directions:
    """The difference of means at the input of layer 3, after the template's last token."""
    model = load("organism")
    chat = ChatFormat(model.tokenizer)
    means = []
    for name in SETS.values():
        prompts = [chat.encode(prompt) for prompt in load_prompts(name.replace("test", "train")).at_most(48).prompts]
        means.append(residuals(model, prompts, (Point("resid_pre", 3),), (-1,)).mean(dim=0)[0])
    return Directions(torch.nn.functional.normalize(means[0] - means[1]))


def test_the_figures_are_those_of_the_baked_folder(refusal: Directions, tmp_path: Path) -> None:
    baked = bake("organism", refusal, tmp_path / "baked")
    adapter("organism", refusal, tmp_path / "lora")
    form = {**SETS, "limit": 24, "max_new_tokens": 24}
    there = evaluate(LoadOptions(adapter=str(tmp_path / "lora")).load("organism"), **form, against="organism")
    here = evaluate(baked, **form, against="organism")
    assert there.model == "lora on organism"
    assert [answer.verdict for answer in there.answers] == [answer.verdict for answer in here.answers]
    assert there.refused is not None
    assert there.refused.refusal.value < 0.2
    assert there.divergence is not None
    assert here.divergence is not None
    # Baking rounds the weights to bfloat16, an adapter does not.
    assert there.divergence.mean == pytest.approx(here.divergence.mean, rel=0.2, abs=1e-3)


def test_options_of_the_base_have_no_adapter() -> None:
    options = LoadOptions(adapter="lora", revision="main")
    assert (options.of_base().adapter, options.of_base().revision) == (None, "main")
    assert LoadOptions(revision="main").of_base().revision is None


def test_no_files_are_those_of_the_two_together(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    adapter(tmp_path / "base", rows(1), tmp_path / "lora")
    found = with_adapter(model_in(tmp_path / "base"), tmp_path / "lora")
    with pytest.raises(UsageError, match="put together in memory"):
        resolve(found)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    save_family("llama", tmp_path / "base")
    adapter(tmp_path / "base", rows(2), tmp_path / "lora", base_model="org/the-base")
    return tmp_path / "lora"


def applied(lora: Path) -> Model:
    return with_adapter(model_in(lora.parent / "base"), lora)


def change(lora: Path, **changes: object) -> None:
    path = lora / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_another_kind_of_adapter_is_named(lora: Path) -> None:
    change(lora, peft_type="IA3")
    with pytest.raises(UnsupportedError, match=r"lora is an adapter of the type IA3; only LORA"):
        applied(lora)


def test_no_module_is_imported_that_an_adapter_names(lora: Path) -> None:
    change(lora, megatron_config={"a": 1}, megatron_core="megatron.core")
    with pytest.raises(UnsupportedError, match=r"lora is an adapter for Megatron \(`megatron_config`"):
        applied(lora)


def test_pickles_are_never_loaded(lora: Path) -> None:
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    with pytest.raises(UnsupportedError, match=r"only pickled weights \(adapter_model\.bin\), which are never loaded"):
        applied(lora)
    (lora / "adapter_model.bin").unlink()
    with pytest.raises(UsageError, match=r"has no adapter_model\.safetensors"):
        applied(lora)


def test_what_is_no_adapter(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no PEFT adapter: it has no adapter_config\.json"):
        with_adapter(model_in(tmp_path / "base"), tmp_path / "base")
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        with_adapter(model_in(tmp_path / "base"), tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a file"):
        with_adapter(model_in(tmp_path / "base"), lora / "adapter_config.json")
    (lora / "adapter_config.json").write_text("[]")
    with pytest.raises(UsageError, match="must be a JSON object"):
        applied(lora)


def test_weights_of_another_shape_name_the_base_that_they_are_for(lora: Path) -> None:
    change(lora, base_model_name_or_path="org/the-base")
    path = lora / "adapter_model.safetensors"
    save_file(
        {name: torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1]) for name, tensor in load_file(path).items()}, path
    )
    with pytest.raises(
        UsageError, match=r"does not fit base \(it was made for org/the-base\): .*size mismatch"
    ) as caught:
        applied(lora)
    assert "\n" not in str(caught.value)


def test_modules_that_the_base_has_not_are_named(lora: Path) -> None:
    change(lora, target_modules=["h.0.attn.c_proj"])
    with pytest.raises(UsageError, match="does not fit base"):
        applied(lora)


@pytest.mark.parametrize("way", ["missing", "more"])
def test_tensors_that_are_missing_or_too_many_are_named(way: str, lora: Path) -> None:
    path = lora / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "down_proj.lora_A" in name)
    if way == "more":
        tensors[name.replace("layers.", "layers.7")] = tensors[name].clone()
    else:
        del tensors[name]
    save_file(tensors, path)
    said = "has no place for 1 tensors" if way == "more" else "needs 1 tensors"
    with pytest.raises(UsageError, match=f"does not fit base .*{said}, such as .*down_proj"):
        applied(lora)


def test_a_damaged_file_is_named(lora: Path) -> None:
    (lora / "adapter_model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"adapter_model\.safetensors of .*lora cannot be read"):
        applied(lora)


def test_an_adapter_for_another_base_that_fits_is_said(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(progress, "_tell", told.append)
    change(lora, base_model_name_or_path="org/another-base")
    with progress.quieted(False):
        applied(lora)
    assert any("says that it was made for another-base, not for base" in line for line in told)


def test_the_command_line_shows_it_beside_its_base(call, refusal: Directions, tmp_path: Path) -> None:
    adapter("organism", refusal, tmp_path / "lora")
    asked = ("--refused", SETS["refused"], "--answered", SETS["answered"], "--limit", "6", "--json")
    result = call("evaluate", "organism", "--adapter", tmp_path / "lora", "--against", "organism", *asked)
    assert result.code == 0, result.err
    assert result.json["model"] == "lora on organism"
    assert result.json["base"]["model"] == "organism"
    assert (
        result.json["sets"]["refused"]["refusal"]["value"] < result.json["base"]["sets"]["refused"]["refusal"]["value"]
    )
    alone = call("evaluate", "--adapter", tmp_path / "lora", *asked)
    assert alone.code == 2


def test_what_is_no_adapter_is_told_before_the_base_answers(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(LoadOptions, "load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "empty").mkdir()
    asked = ("--against", "organism", "--refused", SETS["refused"])
    for wrong, said in (("nowhere", "there is no folder"), ("empty", "is no PEFT adapter")):
        result = call("evaluate", "organism", "--adapter", tmp_path / wrong, *asked)
        assert (result.code, said in result.err) == (2, True), result.err


def test_what_a_folder_was_verified_for_is_not_of_it_with_an_adapter(call, refusal: Directions, tmp_path: Path) -> None:
    adapter("organism", refusal, tmp_path / "lora")
    bake("organism", refusal, tmp_path / "edited")
    assert call("verify", "organism", tmp_path / "edited", "--limit", "1").code == 0
    asked = ("--against", "organism", "--refused", SETS["refused"], "--limit", "2", "--json", "--no-card")
    alone = call("evaluate", tmp_path / "edited", *asked)
    both = call("evaluate", tmp_path / "edited", "--adapter", tmp_path / "lora", *asked)
    assert alone.json["effect"]["complete"] is True
    assert both.json["effect"]["complete"] is None
