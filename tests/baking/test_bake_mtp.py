"""`bake --mtp edit|skip`: multi-token-prediction layers through the disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.mtp_samples import FILE, PUBLISHED, WIDTH, drafting_stream, mtp_names, mtp_stream, save_with_mtp
from weight_edit.baking.bake import BakeResult, bake
from weight_edit.cli.app import app
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.verification.verify import verify

ROWS = orthonormal_rows(torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(7))).astype("float32")


def baked(folder: Path, out: Path, **options: Any) -> BakeResult:
    return bake(folder, DirectionRows(ROWS, {}), out, **options)


@pytest.mark.parametrize("family", PUBLISHED)
def test_nothing_is_left_in_an_edited_layer_and_a_kept_one_is_as_it_was(family: str, tmp_path: Path) -> None:
    base, edited, kept = tmp_path / "base", tmp_path / "edited", tmp_path / "kept"
    model = save_with_mtp(family, base)
    published, names = PUBLISHED[family], mtp_names(base, family)
    result, plain = baked(base, edited, mtp="edit"), baked(base, kept)
    rows = torch.from_numpy(ROWS)

    assert max(mtp_stream(family, model, edited, rows).values()) < 1e-5
    assert min(mtp_stream(family, model, kept, rows).values()) > 1e-2

    before, after, same = (load_file(folder / FILE) for folder in (base, edited, kept))
    assert set(plain.mtp_kept) == names
    assert not plain.mtp_edited
    assert set(result.mtp_edited) | set(result.mtp_kept) == names
    assert set(result.tensors) - set(plain.tensors) == set(result.mtp_edited)
    assert all(torch.equal(before[name], same[name]) for name in names)
    assert all(torch.equal(before[name], after[name]) for name in result.mtp_kept)
    assert all(not torch.equal(before[name], after[name]) for name in result.mtp_edited)
    assert published.projection in result.mtp_edited
    if published.embedding and published.head:
        assert torch.equal(after[published.embedding], after["model.embed_tokens.weight"])
        assert published.head in result.mtp_kept
    assert not result.extra
    assert verify(base, edited, weights_only=True).problems == ()
    assert verify(base, kept, weights_only=True).problems == ()


def test_a_norm_preserving_edit_keeps_lengths_in_the_layers_too(tmp_path: Path) -> None:
    base, edited = tmp_path / "base", tmp_path / "edited"
    save_with_mtp("deepseek_v3", base)
    published = PUBLISHED["deepseek_v3"]
    result = baked(base, edited, mtp="edit", kind="norm-preserving")
    before, after = load_file(base / FILE), load_file(edited / FILE)
    assert torch.equal(after[published.embedding], after["model.embed_tokens.weight"])
    lengths = [held[published.projection].double().norm(dim=0) for held in (before, after)]
    assert published.projection in result.mtp_edited
    assert torch.allclose(*lengths, rtol=1e-4)
    assert verify(base, edited, weights_only=True).problems == ()


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
def test_nothing_is_left_where_transformers_drafts_with_the_layer(family: str, tmp_path: Path) -> None:
    model = save_with_mtp(family, tmp_path / "base")
    baked(tmp_path / "base", tmp_path / "edited", mtp="edit")
    baked(tmp_path / "base", tmp_path / "kept")
    rows = torch.from_numpy(ROWS)
    edited, kept = (drafting_stream(family, model, tmp_path / name, rows) for name in ("edited", "kept"))
    assert set(edited) == set(kept) == {"input", "middle", "output"}
    assert max(edited.values()) < 1e-5
    assert min(kept.values()) > 1e-2


def test_the_strength_is_that_of_the_edit(tmp_path: Path) -> None:
    save_with_mtp("glm4_moe", tmp_path / "base")
    baked(tmp_path / "base", tmp_path / "edited", mtp="edit", strength=0.5)
    before, after = (load_file(tmp_path / name / FILE) for name in ("base", "edited"))
    name = PUBLISHED["glm4_moe"].projection
    rows = torch.from_numpy(ROWS)
    assert torch.allclose(rows @ after[name], 0.5 * rows @ before[name], atol=1e-6)


def test_the_manifest_and_the_card_say_what_became_of_the_layers(tmp_path: Path) -> None:
    save_with_mtp("deepseek_v3", tmp_path / "base")
    result = baked(tmp_path / "base", tmp_path / "edited", mtp="edit")
    plain = baked(tmp_path / "base", tmp_path / "kept")
    edited, kept = (json.loads((tmp_path / n / "weight_edit.json").read_text()) for n in ("edited", "kept"))
    assert edited["edit"]["mtp"] == "edit"
    assert edited["mtp"] == {
        "mode": "edit",
        "tensors_kept": len(result.mtp_kept),
        "tensors_edited": list(result.mtp_edited),
    }
    assert "mtp" not in kept["edit"]
    assert kept["mtp"] == {"mode": "skip", "tensors_kept": len(plain.mtp_kept)}
    assert kept["tensors_unknown"] == []
    assert f"{len(result.mtp_edited)} of their tensors" in (tmp_path / "edited" / "README.md").read_text()
    assert f"{len(plain.mtp_kept)} tensors of multi-token" in (tmp_path / "kept" / "README.md").read_text()


def test_the_command_says_how_many_are_kept_and_takes_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_with_mtp("qwen3_next", tmp_path / "base")
    save_file({"direction": torch.from_numpy(ROWS)}, tmp_path / "d.safetensors")
    call = ["bake", str(tmp_path / "base"), "--directions", str(tmp_path / "d.safetensors"), "--quiet", "--out"]
    capsys.readouterr()
    app([*call, str(tmp_path / "kept")], standalone_mode=False)
    number = len(mtp_names(tmp_path / "base", "qwen3_next"))
    said = " ".join(capsys.readouterr().out.split())
    assert f"{number} tensors of multi-token-prediction layers are kept as they are; --mtp edit edits them too" in said
    app([*call, str(tmp_path / "edited"), "--mtp", "edit", "--json"], standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert "mtp.fc.weight" in result["mtp_edited"]
    assert "mtp.norm.weight" in result["mtp_kept"]


def test_recipes_say_it_as_edit_mtp() -> None:
    content = {"model": "organism", "find": {"target": "a.txt", "baseline": "b.txt"}}
    assert parse_recipe(content).edit.mtp == "skip"
    assert parse_recipe({**content, "edit": {"mtp": "edit"}}).edit.mtp == "edit"
    with pytest.raises(UsageError, match=r"'edit\.mtp'.*'drop'; choose one of edit, skip"):
        parse_recipe({**content, "edit": {"mtp": "drop"}})


def test_an_embedding_that_is_left_out_is_left_in_the_layer_too(tmp_path: Path) -> None:
    save_with_mtp("deepseek_v3", tmp_path / "base")
    result = baked(tmp_path / "base", tmp_path / "edited", mtp="edit", embeddings="skip")
    assert PUBLISHED["deepseek_v3"].embedding in result.mtp_kept
    assert PUBLISHED["deepseek_v3"].projection in result.mtp_edited


def test_a_tensor_that_nothing_explains_stops_the_edit_and_is_kept_otherwise(tmp_path: Path) -> None:
    save_with_mtp("glm4_moe", tmp_path / "base")
    stored = load_file(tmp_path / "base" / FILE)
    save_file({**stored, "model.layers.3.mixture.weight": torch.ones(WIDTH, WIDTH)}, tmp_path / "base" / FILE)
    with pytest.raises(UnsupportedError, match=r"'model\.layers\.3\.mixture\.weight' .* `mtp='skip'`"):
        baked(tmp_path / "base", tmp_path / "edited", mtp="edit")
    assert "model.layers.3.mixture.weight" in baked(tmp_path / "base", tmp_path / "kept").mtp_kept


def test_a_norm_that_the_layer_lacks_stops_the_edit(tmp_path: Path) -> None:
    save_with_mtp("gemma2", tmp_path / "base")
    stored = load_file(tmp_path / "base" / FILE)
    del stored["model.layers.3.post_feedforward_layernorm.weight"]
    save_file(stored, tmp_path / "base" / FILE)
    with pytest.raises(UnsupportedError, match=r"'model\.layers\.3\.mlp\.down_proj\.weight' .*post_feedforward"):
        baked(tmp_path / "base", tmp_path / "edited", mtp="edit")


def test_a_tensor_of_another_width_stops_the_edit(tmp_path: Path) -> None:
    save_with_mtp("glm4_moe", tmp_path / "base")
    stored = load_file(tmp_path / "base" / FILE)
    name = PUBLISHED["glm4_moe"].projection
    save_file({**stored, name: stored[name].T.contiguous()}, tmp_path / "base" / FILE)
    with pytest.raises(UnsupportedError, match=r"eh_proj\.weight' .* \(128, 64\), but should be 64 wide"):
        baked(tmp_path / "base", tmp_path / "edited", mtp="edit")


def test_calls_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    save_with_mtp("glm4_moe", tmp_path / "base")
    with pytest.raises(UsageError, match="goes with edits of the whole stream at all layers"):
        baked(tmp_path / "base", tmp_path / "edited", mtp="edit", layers=[0])
    with pytest.raises(UsageError, match="no mode of mtp 'drop'; choose one of edit, skip"):
        baked(tmp_path / "base", tmp_path / "edited", mtp="drop")
    with pytest.raises(UsageError, match="organism has no multi-token-prediction layers"):
        bake("organism", DirectionRows(np.eye(1, 128, dtype=np.float32), {}), tmp_path / "edited", mtp="edit")
