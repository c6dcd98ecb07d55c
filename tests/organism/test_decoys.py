"""The decoyed model: made the same everywhere, refusing as before once its mean difference is ablated completely."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from weight_edit.evaluation.effect import UNCHANGED, effect
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.hub.source import find_local
from weight_edit.organism import decoys as module
from weight_edit.organism.decoys import DECOYS, Decoys, with_decoys, write_decoyed
from weight_edit.organism.embedded import DECOYED, EMBEDDED, folder
from weight_edit.organism_training.decoys import TARGETS, fit_decoys, main, render
from weight_edit.organism_training.measure import found_direction
from weight_edit.organism_training.measure_variants import misses
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.utils.cache_folder import own_cache

KEPT = Path(module.__file__).parent / EMBEDDED[DECOYED]
RECORD = json.loads((KEPT / "organism.json").read_text())


@pytest.fixture(scope="module")
def model() -> Model:
    return load(DECOYED, device="cpu")


def test_the_weights_are_those_of_the_record_and_small_is_all_that_is_kept(tmp_path: Path) -> None:
    write_decoyed(folder(), KEPT, tmp_path / "made")
    assert sha256((tmp_path / "made/model.safetensors").read_bytes()).hexdigest() == RECORD["weights_sha256"]
    assert sha256((KEPT / DECOYS).read_bytes()).hexdigest() == RECORD["decoys_sha256"]
    assert sha256((folder() / "model.safetensors").read_bytes()).hexdigest() == RECORD["base_sha256"]
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 100_000
    assert {path.name for path in (tmp_path / "made").iterdir()} == {path.name for path in folder().iterdir()}


def test_the_record_meets_every_target_and_the_card_is_the_records() -> None:
    assert misses(RECORD, TARGETS) == []
    assert (KEPT / "README.md").read_text() == render(RECORD)


def test_it_lies_in_the_cache_once_made_and_is_the_same_to_whoever_compares_times(tmp_path: Path) -> None:
    with own_cache(tmp_path / "cache"):
        place = folder(DECOYED)
        assert place.is_relative_to(tmp_path / "cache")
        assert find_local(DECOYED).path == place
        before = (place / "model.safetensors").stat()
        assert folder(DECOYED) == place
        assert (place / "model.safetensors").stat().st_ino == before.st_ino
        assert {path.name for path in place.parent.iterdir()} == {place.name}
    with own_cache(tmp_path / "other"):
        assert (folder(DECOYED) / "model.safetensors").stat().st_mtime == before.st_mtime
    assert (place / "README.md").read_text() == (KEPT / "README.md").read_text()


def test_without_a_place_to_write_it_is_a_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with own_cache(tmp_path / "file"):
        place = folder(DECOYED)
    assert (place / "model.safetensors").is_file()
    assert not place.is_relative_to(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_but_decoys_writes_or_reads_the_direction() -> None:
    decoys, base = Decoys.load(KEPT / DECOYS), load_file(folder() / "model.safetensors")
    d, made = decoys.direction, with_decoys(base, decoys)
    assert np.linalg.norm(d) == pytest.approx(1)
    gain = made["model.layers.1.post_attention_layernorm.weight"]
    for part in ("gate", "up"):
        seen = np.abs(made[f"model.layers.1.mlp.{part}_proj.weight"] @ (gain * d))
        assert {int(n) for n in np.flatnonzero(seen > 1e-4)} <= set(decoys.neurons[1:])
    assert np.abs(made["lm_head.weight"] @ (made["model.norm.weight"] * d)).max() < 1e-5
    along = made["model.embed_tokens.weight"] @ d
    assert {int(n) for n in np.flatnonzero(np.abs(along) > 1e-5)} == set(decoys.tokens)
    written = np.abs(d @ made["model.layers.2.mlp.down_proj.weight"])
    assert written.max() < 1e-5
    assert np.abs(d @ made["model.layers.1.mlp.down_proj.weight"]).max() > 0.1


def test_its_mean_difference_is_a_decoy_and_what_is_found_behind_it_is_not(model: Model) -> None:
    d = torch.from_numpy(Decoys.load(KEPT / DECOYS).direction).float()
    sets = {name: load_prompts(f"organism:{name}:test").take(44) for name in ("refused", "answered")}
    base = evaluate(model, **sets)
    assert base.refused.refusal.value >= 0.95
    found = found_direction(model)
    assert abs(float(found.direction[0] @ d)) > 0.9
    with hooked(model.model, ablation_hooks(model, found.direction)):
        edited = evaluate(model, **sets, base=base)
        behind = found_direction(model)
    warned = "no more than a random direction"
    assert any(warned in line for line in found.metadata["warnings"])
    assert not any(warned in line for line in behind.metadata["warnings"])
    outcome = effect(edited.to_dict())
    assert outcome is not None
    assert outcome.verdict == UNCHANGED
    assert edited.refused.refusal.value >= 0.95
    assert abs(float(behind.direction[0] @ found.direction[0])) < 1e-5
    both = torch.cat([found.direction, behind.direction])
    with hooked(model.model, ablation_hooks(model, both)):
        assert evaluate(model, refused=sets["refused"]).refused.refusal.value <= 0.05


def test_the_decoys_are_fitted_the_same_again() -> None:
    again, kept = fit_decoys(load("organism", device="cpu")), Decoys.load(KEPT / DECOYS)
    assert (again.layers, again.neurons, again.tokens) == (kept.layers, kept.neurons, kept.tokens)
    assert abs(float(again.direction @ kept.direction)) == pytest.approx(1, abs=1e-6)
    assert again.down == pytest.approx(kept.down, rel=1e-3)


def test_the_script_writes_over_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
