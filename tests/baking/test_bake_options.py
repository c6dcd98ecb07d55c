"""The ways to write a bake: from the Hub with little disk, as links, resumed, and only said."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.checkpoint_samples import content
from tests.helpers.families import save_family
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.rewrite import rewrite as rewriting
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.verification.verify import verify

ROWS = DirectionRows(torch.nn.functional.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(0))))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A Llama in several shards."""
    from transformers import AutoModelForCausalLM

    save_family("llama", tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "base", max_shard_size="60KB")
    for path in (tmp_path / "whole").iterdir():
        if not (tmp_path / "base" / path.name).exists() and path.suffix != ".safetensors":
            (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    assert len(Checkpoint.open(tmp_path / "base").shards) > 2
    return tmp_path / "base"


def without_card(folder: Path) -> dict[str, bytes]:
    """What does not depend on the model's name."""
    return {name: data for name, data in content(folder).items() if name not in ("README.md", "weight_edit.json")}


@pytest.mark.parametrize("embeddings", ["both", "untie"])
def test_low_disk_gives_what_a_download_gives(hub, sharded, tmp_path, monkeypatch, embeddings):
    hub.add("org/model", sharded)
    bake(sharded, ROWS, tmp_path / "local", embeddings=embeddings)
    most = 0
    lane_file = rewriting.LaneFile

    class Watching(lane_file):
        def finish(self, origin: Any) -> Any:
            nonlocal most
            here = list((tmp_path / ".low.download").glob("*.safetensors"))
            most = max(most, len(here))
            return super().finish(origin)

    monkeypatch.setattr(rewriting, "LaneFile", Watching)
    result = bake("org/model", ROWS, tmp_path / "low", embeddings=embeddings, low_disk=True)
    assert most == 1
    assert without_card(tmp_path / "low") == without_card(tmp_path / "local")
    assert result.tensors
    assert not (tmp_path / ".low.download").exists()
    manifest = json.loads((tmp_path / "low/weight_edit.json").read_text(encoding="utf-8"))
    assert manifest["source"]["revision"] == hub.repos["org/model"].commit


def test_low_disk_is_for_downloads_only(sharded, tmp_path):
    with pytest.raises(UsageError, match="on this disk already"):
        bake(sharded, ROWS, tmp_path / "out", low_disk=True)
    assert not (tmp_path / "out").exists()


def test_links_share_the_untouched_files_and_the_manifest_says_so(sharded, tmp_path):
    bake(sharded, ROWS, tmp_path / "copied", layers=[0])
    result = bake(sharded, ROWS, tmp_path / "linked", layers=[0], link=True)
    one, two = without_card(tmp_path / "copied"), without_card(tmp_path / "linked")
    assert one == two
    files = json.loads((tmp_path / "linked/weight_edit.json").read_text(encoding="utf-8"))["files"]
    linked = {name for name, entry in files.items() if entry["origin"] == "linked"}
    same = {name for name in one if (tmp_path / "linked" / name).stat().st_ino == (sharded / name).stat().st_ino}
    assert linked == same
    assert any(name.endswith(".safetensors") for name in linked)
    assert result.bytes_linked == sum((sharded / name).stat().st_size for name in linked)
    assert verify(sharded, tmp_path / "linked", weights_only=True).passed


def test_a_dry_run_writes_nothing_and_says_what_a_bake_writes(sharded, tmp_path):
    before = sorted(os.listdir(tmp_path))  # noqa: PTH208
    planned = bake(sharded, ROWS, tmp_path / "out", dry_run=True)
    assert sorted(os.listdir(tmp_path)) == before  # noqa: PTH208
    written = bake(sharded, ROWS, tmp_path / "out")
    assert planned.files == {
        name: len(data)
        for name, data in content(tmp_path / "out").items()
        if name not in ("README.md", "weight_edit.json")
    }
    assert (planned.tensors, planned.bytes_edited) == (written.tensors, written.bytes_edited)
    assert planned.dry_run
    assert not written.dry_run
    assert written.bytes_edited + written.bytes_copied == written.bytes_total == planned.bytes_total


def test_an_interrupted_bake_goes_on_where_it_was(sharded, tmp_path, monkeypatch):
    bake(sharded, ROWS, tmp_path / "whole-run")
    finished = []
    lane_file = rewriting.LaneFile

    class Interrupted(lane_file):
        def finish(self, origin: Any) -> Any:
            if len(finished) == 2:
                raise KeyboardInterrupt
            finished.append(origin)
            return super().finish(origin)

    monkeypatch.setattr(rewriting, "LaneFile", Interrupted)
    monkeypatch.setattr(rewriting, "MOST_LANES", 1)
    with pytest.raises(KeyboardInterrupt):
        bake(sharded, ROWS, tmp_path / "out")
    monkeypatch.setattr(rewriting, "LaneFile", lane_file)
    assert not (tmp_path / "out").exists()
    resumed = bake(sharded, ROWS, tmp_path / "out", resume=True)
    assert resumed.bytes_kept > 0
    assert content(tmp_path / "out") == content(tmp_path / "whole-run")
    assert not list(tmp_path.glob(".out*"))


def test_a_model_that_is_not_finite_is_refused_by_name_or_copied_with_leave(call, tmp_path):
    """A norm's gain is edited by no ablation, and so is copied."""
    from safetensors.torch import load_file, save_file

    save_family("llama", tmp_path / "base")
    path, name = tmp_path / "base/model.safetensors", "model.layers.1.input_layernorm.weight"
    tensors = load_file(path)
    tensors[name][5] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    save_file({"direction": torch.from_numpy(ROWS.rows)}, tmp_path / "d.safetensors")
    arguments = ("bake", tmp_path / "base", "--directions", tmp_path / "d.safetensors", "--out", tmp_path / "out")
    refused = call(*arguments)
    assert refused.code == 2
    assert f"tensor '{name}' has NaN or infinite values" in refused.err
    assert not (tmp_path / "out").exists()
    done = call(*arguments, "--allow-nonfinite", "--json")
    assert done.code == 0
    assert done.json["nonfinite"] == {name: 1}
