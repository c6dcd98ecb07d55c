"""`verify` on the command line: it fails closed, on spoilt weights and manifests too."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file


def test_not_a_number_fails_closed_and_stays_json(call, directions: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "out").code == 0
    shard = tmp_path / "out/model.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, shard, metadata={"format": "pt"})
    checked = call("verify", "organism", tmp_path / "out", "--limit", 2, "--json")
    assert checked.code == 4
    assert checked.json["passed"] is False
    assert checked.json["leak"] is None
    shown = call("verify", "organism", tmp_path / "out", "--limit", 2)
    assert shown.code == 4
    assert "Traceback" not in shown.err


def test_two_models_in_each_others_place_are_told(call, baked_once: Path) -> None:
    refused = call("verify", baked_once, "organism")
    assert refused.code == 2
    assert "by which it is an edit of organism, and organism has none; give the base first" in refused.err
    assert not refused.progress
    # They may be compared all the same.
    noted = call("diff", baked_once, "organism", "--json").json["notes"][0]
    assert noted.endswith("and organism has none: what is explained here is the way back")
    assert not call("diff", "organism", baked_once, "--json").json["notes"]
    measured = call(
        "evaluate", "organism", "--against", baked_once, "--answered", "organism:answered:test", "--limit", 2
    )
    assert "what is called edited here is the base" in " ".join(measured.out.split())


def test_a_partial_edit_is_not_called_complete(call, directions: Path, tmp_path: Path) -> None:
    args = ("--strength", "0.5", "--layers", "0")
    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "o", *args).code == 0
    shown = call("verify", "organism", tmp_path / "o", "--limit", 2)
    assert shown.code == 0
    assert "The edit is partial" in shown.out


@pytest.mark.parametrize(
    "spoil",
    [
        {"source": []},
        {"source": None},
        {"edit": {}},
        {"edit": {"steps": {}, "embeddings": "both"}},
        {"edit": {"steps": [], "embeddings": "both"}},
        {"edit": {"steps": [3], "embeddings": "both"}},
        {"step": {"edit": "magic"}},
        {"step": {"edit": []}},
        {"step": {"strength": "x"}},
        {"step": {"layers": [-1]}},
        {"step": {"layers": []}, "edit": {"embeddings": "skip"}},
        {"step": {"edit": "reflect", "at": [-1]}},
        {"step": {"kernel": 3}},
        {"step": {"options": ["x"]}},
        {"step": {"directions": []}},
        {"step": {"directions": {"shape": [1, 128], "float32": "AAAA"}}},
        {"step": {"directions": {"shape": [1, 128], "float32": "AAAA", "tensors": 1}}},
        {"failed": ["a reason"]},
    ],
)
def test_a_spoilt_manifest_is_no_traceback(call, spoil: dict, directions: Path, tmp_path: Path) -> None:
    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "o").code == 0
    path = tmp_path / "o/weight_edit.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    spoil = dict(spoil)
    if "step" in spoil:
        steps = [{**manifest["edit"]["steps"][0], **spoil.pop("step")}]
        spoil["edit"] = {**manifest["edit"], **spoil.get("edit", {}), "steps": steps}
    path.write_text(json.dumps({**manifest, **spoil}), encoding="utf-8")
    for args in (
        ("verify", "organism", tmp_path / "o", "--limit", 2),
        ("push", tmp_path / "o", "a/b", "--dry-run"),
    ):
        result = call(*args)
        assert result.code in (2, 3, 4), args
        assert "Traceback" not in result.err


def test_verify_of_the_files_alone(call, directions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("bake", "organism", "--directions", directions, "--out", out).code == 0
    found = call("verify", "organism", out, "--weights-only", "--json")
    assert found.code == 0, found.err
    assert found.json["weights_only"] is True
    assert found.json["leak"] is None
    assert found.json["edited_tensors"]["compared"] == 13
    tables = call("verify", "organism", out, "--weights-only")
    assert "no model was run" in tables.out
    assert "the models were not run" in tables.out
    both = call("verify", "organism", out, "--weights-only", "--prompts", "organism:answered")
    assert both.code == 2
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1] ^= 0x40
    (out / "model.safetensors").write_bytes(data)
    failed = call("verify", "organism", out, "--weights-only", "--json")
    assert failed.code == 4
    assert any("model.safetensors" in problem for problem in failed.json["problems"])
