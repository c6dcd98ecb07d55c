"""Sweeps and comparisons on the embedded model, with few prompts."""

import csv
import json

import numpy as np
import pytest

from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import EditEntry
from weight_edit.studies.registry import study_named


def read(folder, name):
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / f"{name}.json").read_text())


def test_a_sweep_has_the_unedited_model_a_control_and_intervals(lab):
    some = lab()
    found = study_named("sweep")(some, {"strengths": [0.25, 1.0], "x": "kl"})
    rows = found["rows"]
    assert [(row["directions"], row["strength"]) for row in rows] == [
        ("none", 0.0),
        ("main", 0.25),
        ("main", 1.0),
        ("random", 0.25),
        ("random", 1.0),
    ]
    by = {(row["directions"], row["strength"]): row for row in rows}
    assert by["none", 0.0]["refusal"] == 1.0
    assert by["main", 1.0]["refusal"] == 0.0
    assert by["random", 1.0]["refusal"] > 0.9
    for row in rows:
        assert row["refusal_low"] <= row["refusal"] <= row["refusal_high"]
        for name in ("kl", "kl_answer", "loss", "own_loss"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert by["main", 1.0]["refusal_high"] > 0.1, "eleven prompts cannot make a rate certain"
    # Eleven prompts of eleven; four points were tried, so that the p value counts fourfold.
    main, random = by["main", 1.0], by["random", 1.0]
    assert main["refusal_p"] == pytest.approx(2 / 2**11)
    assert main["refusal_p_holm"] == pytest.approx(4 * main["refusal_p"])
    assert main["refusal_against_base"] == "lower"
    assert random["refusal_against_base"] == "no difference can be told"
    assert random["refusal_p_holm"] == 1.0
    assert "refusal_p" not in by["none", 0.0]
    assert found["distances"].keys() == {"random"}
    assert found["distances"]["random"] > 0.1
    lines, stored = read(some.folder, "sweep")
    assert stored == json.loads(json.dumps(rows))
    assert [float(line["refusal"]) for line in lines] == pytest.approx([row["refusal"] for row in rows], abs=1e-5)
    assert (some.folder / "trade-off.png").exists()


def test_a_comparison_says_what_cannot_be_made_and_goes_on(lab):
    some = lab()
    rows = study_named("compare")(some, {"edits": {"ablate": {}, "erase": {"kind": "erase"}}})["rows"]
    assert [(row["directions"], row["edit"]) for row in rows] == [
        ("none", "none"),
        ("main", "ablate"),
        ("main", "erase"),
        ("random", "ablate"),
        ("random", "erase"),
    ]
    assert "left" in rows[2]["why_not"]
    assert "refusal" not in rows[2]
    assert rows[1]["refusal"] == 0.0
    assert rows[1]["refusal_p_holm"] == pytest.approx(2 * rows[1]["refusal_p"])
    assert "refusal_p_holm" not in rows[2]
    assert rows[3]["refusal"] > 0.9
    lines, stored = read(some.folder, "compare")
    assert stored[2]["why_not"] == lines[2]["why_not"] == rows[2]["why_not"]
    assert (some.folder / "compare.png").exists()


def test_the_control_is_as_long_as_what_it_is_beside_and_another(lab):
    some = lab()
    known, control = some.directions(), some.control()
    assert np.linalg.norm(control.rows, axis=1) == pytest.approx(1, abs=1e-6)
    lengths = [np.linalg.norm(each.tensors["vector"]) for each in (known, control)]
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-5)
    assert abs(float(known.rows[0] @ control.rows[0])) < 0.5
    assert np.array_equal(control.tensors["baseline_mean"], known.tensors["baseline_mean"])
    assert np.array_equal(control.rows, some.control().rows)
    with pytest.raises(UsageError, match="the recipe finds main"):
        some.step(EditEntry(directions="other"))
