"""The training script from end to end, a few steps long."""

import json

import pytest

from weight_edit.organism.train import main

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


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out
