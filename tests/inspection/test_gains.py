"""inspect: the gains of norms behind writers, of which a loud one is told before any pass."""

import io
import json
import statistics
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from tests.helpers.fake_hub import FakeHub
from tests.helpers.families import save_family
from weight_edit.cli.tables.inspection import inspection
from weight_edit.inspection.gains import BOUND, MOST_REQUESTS
from weight_edit.inspection.inspect import Inspection, inspect

BEHIND = "model.layers.{}.post_feedforward_layernorm.weight"


def plant(folder: Path, gain: float, coordinate: int = 3) -> Path:
    """The folder with one gain of every norm behind an MLP set."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = [name for name in tensors if name.endswith("post_feedforward_layernorm.weight")]
    assert names
    for name in names:
        # Gains of this family are 1 + weight.
        tensors[name] = torch.linspace(-0.2, 0.2, len(tensors[name]))
        tensors[name][coordinate] = gain - 1
    save_file(tensors, path, {"format": "pt"})
    return folder


def shown(found: Inspection) -> str:
    output = io.StringIO()
    inspection(found, Console(file=output, width=1000))
    return output.getvalue()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loud_gain_is_told_in_the_tree_and_in_json(tmp_path: Path, sign: int) -> None:
    found = inspect(plant(save_family("gemma3", tmp_path / "loud"), sign * 40.0))
    document = found.to_dict()["gains"]
    assert json.loads(json.dumps(document)) == document
    assert document["loud"]
    assert document["bound"] == BOUND
    assert [block["layer"] for block in document["blocks"]] == [0, 1, 2]
    stored = load_file(tmp_path / "loud" / "model.safetensors")
    for block in document["blocks"]:
        assert block["norm"] == BEHIND.format(block["layer"])
        assert block["coordinate"] == 3
        sizes = [abs(1 + value) for value in stored[block["norm"]].double().tolist()]
        assert block["ratio"] == pytest.approx(max(sizes) / statistics.median(sizes))
    assert document["ratio"] == pytest.approx(statistics.median(block["ratio"] for block in document["blocks"]))
    assert "coordinate 3" in shown(found)
    assert "may own a mean difference" in shown(found)


def test_even_gains_are_no_note(tmp_path: Path) -> None:
    found = inspect(plant(save_family("gemma3", tmp_path / "even"), 2.0))
    assert found.gains is not None
    assert not found.gains.loud
    assert 1.5 < found.gains.ratio < BOUND
    assert "mean difference" not in shown(found)


def test_without_norms_behind_writers_nothing_is_read(tmp_path: Path) -> None:
    found = inspect(save_family("llama", tmp_path / "llama"))
    assert found.gains is None
    assert found.to_dict()["gains"] is None


def test_of_a_hub_model_the_gains_of_a_few_blocks_are_read_and_no_shard_is_downloaded(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/loud", plant(save_family("gemma3", tmp_path / "loud"), 40.0))
    monkeypatch.setattr("weight_edit.inspection.gains.MOST_REQUESTS", 2)
    assert MOST_REQUESTS > 2
    found = inspect("org/loud")
    assert found.gains is not None
    assert found.gains.loud
    assert [block.layer for block in found.gains.blocks] == [0, 2]
    assert hub.sent() == []
