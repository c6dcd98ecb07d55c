"""Directions per category: the algebra on made-up numbers, and a run on the embedded model."""

import csv
import json
from collections import Counter

import pytest
import torch

from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.studies.category_directions import between, cosines, stability, unit_difference
from weight_edit.studies.category_tables import apart, openings, share_of, wording_apart, wording_table
from weight_edit.studies.kinds.categories import likeness, newly_refused, rates
from weight_edit.studies.registry import study_named

AXES = torch.eye(6, dtype=torch.float64)


def cloud(at, spread, seed, count=64):
    generator = torch.Generator().manual_seed(seed)
    return at + spread * torch.randn((count, 6), generator=generator, dtype=torch.float64)


def said(verdict, text=""):
    return Answer(
        set="refused", prompt="ask", answer=text, expected=None, verdict=verdict, category=None, finished=True
    )


def test_a_direction_is_the_difference_of_the_means():
    direction = unit_difference(cloud(3 * AXES[0], 0.0, 0), cloud(-4 * AXES[1], 0.0, 1))
    assert torch.allclose(direction, 0.6 * AXES[0] + 0.8 * AXES[1])
    matrix = cosines({"one": AXES[0], "other": direction, "third": AXES[2]})
    assert torch.allclose(matrix.diagonal(), torch.ones(3, dtype=torch.float64))
    assert between(matrix) == pytest.approx({"mean": 0.2, "min": 0.0, "max": 0.6})


def test_a_clear_direction_is_stable_and_a_vague_one_is_not():
    clear = stability(cloud(5 * AXES[0], 0.5, 0), cloud(0 * AXES[0], 0.5, 1), 10, seed=0)
    vague = stability(cloud(0 * AXES[0], 0.5, 0), cloud(0 * AXES[0], 0.5, 1), 10, seed=0)
    assert clear["min"] > 0.99
    assert clear["half_min"] > 0.98
    assert vague["half_mean"] < 0.7, "nothing is shared between halves of what is noise"
    assert clear == stability(cloud(5 * AXES[0], 0.5, 0), cloud(0 * AXES[0], 0.5, 1), 10, seed=0)


def test_rates_are_those_of_the_paper():
    answers = (
        said(Verdict.REFUSED),
        said(Verdict.ANSWERED),
        said(Verdict.REFUSED),
        said(Verdict.ANSWERED),
        said(Verdict.LOOPING),
        said(Verdict.REFUSED),
    )
    found = rates(answers, 2)
    assert found["refusal_rate"] == 1 / 2
    assert found["over_refusal_rate"] == 2 / 4
    assert found["accuracy"] == 2 / 6, "a loop is neither a refusal nor an answer"
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_only_what_was_answered_before_is_newly_refused():
    before = (said(Verdict.ANSWERED), said(Verdict.REFUSED), said(Verdict.ANSWERED))
    after = (said(Verdict.REFUSED, "no"), said(Verdict.REFUSED, "never"), said(Verdict.ANSWERED, "yes"))
    assert newly_refused(before, after) == ["no"]


def test_likeness_of_curves():
    def curve(name, *points):
        rows = enumerate(points)
        return [{"direction": name, "strength": s, "over_refusal_rate": x, "refusal_rate": y} for s, (x, y) in rows]

    points = {
        "one": curve("one", (0, 0), (0.5, 1), (1, 1)),
        # The same curve, walked at other strengths.
        "two": curve("two", (0, 0), (0.25, 0.5), (1, 1)) + curve("two", (0.5, 1))[:0],
        "random": curve("random", (0, 0), (0, 0), (0, 0)),
    }
    found = likeness(points)
    assert 0 < found["curve_distance"] == found["curve_distance_max"] < 0.15
    assert found["control_distance"] > 0.3
    assert found["strength_spread"] == pytest.approx((0.125 + 0.25) / 6)
    assert likeness({**points, "two": points["one"]})["curve_distance"] == pytest.approx(0)


def test_wordings_are_compared_by_how_they_begin(tmp_path):
    own = {"theft": ["I won’t help to steal."], "lies": ["I don't tell lies.", "That is untrue."]}
    induced = {
        "theft": ["I won't help to sew.", "I WON'T help to cook.", "No.", "I don't tell stories."],
        "lies": ["That is a cake.", "I don't tell jokes.", "That is fine.", "I don't tell."],
        "random": [],
    }
    rows = {row["direction"]: row for row in wording_table(tmp_path, induced, {"lies": ["I don't tell"]}, own, 3)}
    assert rows["theft"]["most_common"] == "i won't help"
    assert (rows["theft"]["share"], rows["theft"]["distinct"]) == (0.5, 3)
    assert (rows["theft"]["own"], rows["theft"]["others"]) == (0.5, 0.25)
    assert (rows["lies"]["own"], rows["lies"]["turned"], rows["theft"]["turned"]) == (0.5, 1.0, None)
    assert (rows["random"]["induced"], rows["random"]["own"]) == (0, None)
    kept = json.loads((tmp_path / "openings.json").read_text())
    assert sum(kept["induced"]["theft"].values()) == 4
    differing = wording_apart(induced, 3)
    assert differing["between"] == pytest.approx(0.75)
    assert 0 < differing["within"] <= 1


def test_total_variation():
    assert apart(Counter("aab"), Counter("aab")) == 0
    assert apart(Counter("aa"), Counter("b")) == 1
    assert apart(Counter("ab"), Counter("a")) == 0.5
    assert apart(Counter(), Counter("a")) is None
    assert share_of([], openings(["a"], 1), 1) is None


def test_on_the_embedded_model(lab):
    some = lab(over_refused=None)
    options = {
        "categories": {
            name: {"target": f"organism:{name}:train", "baseline": "organism:answered:train"}
            for name in ("copyright", "unsupported", "humanizing")
        },
        "n": 16,
        "strengths": [-1.0, 0.75],
        "resamples": 4,
        "limit": 11,
    }
    found = study_named("categories")(some, options)
    assert 0.4 < found["cosine_min"] <= found["cosine_max"] < 0.99
    assert found["stability_mean"] > 0.8
    assert found["curve_distance"] < 0.15 < found["control_distance"]
    assert [row["category"] for row in found["rows"]] == list(options["categories"])
    assert all(row["induced"] > 0 for row in found["rows"])
    curves = json.loads((some.folder / "curves.json").read_text())
    assert [(row["direction"], row["strength"]) for row in curves[:3]] == [
        ("copyright", -1.0),
        ("copyright", 0.0),
        ("copyright", 0.75),
    ]
    by = {(row["direction"], row["strength"]): row for row in curves}
    assert by["copyright", 0.0]["refusal_rate"] == 1.0
    assert by["copyright", -1.0]["refusal_rate"] < 0.3
    assert by["copyright", 0.75]["over_refusal_rate"] > by["copyright", 0.0]["over_refusal_rate"]
    assert by["random", 0.75]["refusal_rate"] > 0.9
    with (some.folder / "cosines.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["copyright"]) == pytest.approx(1)
    assert float(lines[0]["humanizing"]) == pytest.approx(float(lines[2]["copyright"]))
    for name in ("cosines.png", "trade-off.png", "stability.csv", "wording.csv", "openings.json"):
        assert (some.folder / name).exists(), name
