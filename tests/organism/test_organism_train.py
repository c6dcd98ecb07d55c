"""The training script from end to end, a few steps long."""

import json
import shutil

import pytest

from weight_edit.organism.embedded import folder
from weight_edit.organism_training.train import main

FEW = ["--steps-answering", "2", "--steps-refusing", "2", "--threads", "1", "--limit", "2", "--accept-misses"]


def without_seconds(path):
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


def test_it_writes_everything_and_repeats_itself(tmp_path, capsys):
    for name in ("one", "two"):
        assert main(["--out", str(tmp_path / name), *FEW]) == 0
    assert "missed: no direction" in capsys.readouterr().err
    one, two = tmp_path / "one", tmp_path / "two"
    names = sorted(path.name for path in one.iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "organism.json"} <= set(names)
    for name in names:
        if name not in ("README.md", "organism.json"):  # these hold the time it took
            assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert without_seconds(one / "organism.json") == without_seconds(two / "organism.json")
    assert "No direction was found" in (one / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_model_that_misses_its_targets_is_not_written(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "out"), *FEW[:-1]]) == 4
    assert "misses" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_organism_is_not_replaced(tmp_path, capsys):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    assert main(["--out", str(tmp_path / "precious"), *FEW]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_a_users_file_beside_an_organism_is_not_removed(tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(folder(), out)
    (out / "thesis.txt").write_text("years of work")
    assert main(["--out", str(out), *FEW]) == 2
    assert "holds something else" in capsys.readouterr().err
    (out / "thesis.txt").unlink()
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:-1] + b"!")
    assert main(["--out", str(out), *FEW]) == 2
    assert "other weights" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == weights[:-1] + b"!"
    (out / "model.safetensors").write_bytes(weights)
    assert main(["--out", str(out), *FEW]) == 0
    assert (out / "model.safetensors").read_bytes() != weights
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out
