"""Directions measured on other prompts than those they were found on."""

import json

import numpy as np
import pytest
import torch

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.studies.kinds.transfer import line_of
from weight_edit.studies.registry import study_named


def test_of_several_directions_the_line_between_the_means_is_taken():
    rows = np.eye(2, 4)
    means = {"target_mean": np.array([3.0, 4.0, 9.0, 0.0]), "baseline_mean": np.array([0.0, 0.0, 1.0, 2.0])}
    line = line_of(DirectionRows(rows, {}, means))
    assert torch.allclose(line, torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64))
    assert torch.equal(line_of(DirectionRows(rows)), torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    same = {"target_mean": np.eye(4)[2], "baseline_mean": np.eye(4)[3]}
    assert torch.equal(line_of(DirectionRows(rows, {}, same)), torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))


def test_on_held_out_phrasings_of_the_embedded_model(lab):
    some = lab()
    options = {
        "sets": {"words": "organism:refused:held-out-words", "phrasings": "organism:refused:held-out-phrasings"},
        "answered": {"phrasings": "organism:answered:held-out-phrasings"},
        "edits": {"ablate": {}},
        "limit": 11,
    }
    found = study_named("transfer")(some, options)
    by = {(row["set"], row["edit"], row["directions"]): row for row in found["rows"]}
    assert len(by) == len(found["rows"]) == 6
    for label in ("words", "phrasings"):
        assert by[label, "none", "none"]["refusal"] == 1.0
        assert by[label, "ablate", "main"]["refusal"] == 0.0
        assert by[label, "ablate", "random"]["refusal"] > 0.9
    assert "kl" in by["phrasings", "ablate", "main"]
    assert "kl" not in by["words", "ablate", "main"]
    assert by["phrasings", "none", "none"]["kl"] == pytest.approx(0, abs=1e-6)
    assert found["most_left"] == {"ablate": 0.0}
    areas = {(line["directions"], line["set"]): line["auc"] for line in found["separation"]}
    assert areas["main", "words"] > 0.95
    assert areas["main", "phrasings"] > 0.95
    assert len(areas) == 4
    assert json.loads((some.folder / "separation.json").read_text()) == found["separation"]
    assert (some.folder / "transfer.png").exists()
    assert (some.folder / "transfer.csv").exists()
