"""Where edits land: on made-up clusters, and on the embedded model."""

import json

import pytest
import torch

from weight_edit.errors import UsageError
from weight_edit.studies.kinds.geometry import coordinates, principal_plane
from weight_edit.studies.registry import study_named


def clusters():
    """Two clusters of a hundred points, at 4 and -2 along the first axis, a little spread out."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn((2, 100, 8), generator=generator, dtype=torch.float64)
    noise -= noise.mean(dim=1, keepdim=True)
    axis = torch.eye(8, dtype=torch.float64)[0]
    return noise[0] + 4 * axis, noise[1] - 2 * axis, axis


def test_the_clusters_themselves_lie_at_one_and_nothing():
    target, baseline, _ = clusters()
    one, nothing = coordinates(target, target, baseline), coordinates(baseline, target, baseline)
    assert one["t"] == pytest.approx(1)
    assert nothing["t"] == pytest.approx(0, abs=1e-12)
    assert one["nearer_baseline"] == 0
    assert nothing["nearer_baseline"] == 1
    assert one["to_baseline"] == pytest.approx(1, abs=0.01)
    assert one["to_target"] < 0.1
    assert one["t_low"] < one["t"] < one["t_high"]


def test_a_projection_lands_between_and_a_flip_on_the_other_side():
    target, baseline, axis = clusters()
    along = (target @ axis)[:, None] * axis
    # The axis's origin lies a third of the way from the baseline to the target.
    assert coordinates(target - along, target, baseline)["t"] == pytest.approx(1 / 3)
    flipped = coordinates(target - 2 * along, target, baseline)
    assert flipped["t"] == pytest.approx(-1 / 3)
    assert flipped["nearer_baseline"] == 1
    aside = coordinates(target + 3 * torch.eye(8, dtype=torch.float64)[1], target, baseline)
    assert aside["t"] == pytest.approx(1)
    assert aside["off_line"] == pytest.approx(0.5, abs=0.02)


def test_the_plane_does_not_depend_on_the_order_of_the_prompts():
    target, baseline, axis = clusters()
    both = torch.cat([target, baseline])
    mean, plane = principal_plane(both)
    assert torch.allclose(mean, axis)
    assert abs(plane[0, 0]) > 0.999
    assert torch.allclose(plane, principal_plane(both.flip(0))[1])
    assert torch.allclose(plane.T @ plane, torch.eye(2, dtype=torch.float64))


def test_on_the_embedded_model(lab):
    some = lab()
    edits = {"projection": {"at": [3]}, "flip": {"kind": "reflect", "at": [3]}, "affine": {"kind": "affine", "at": [3]}}
    found = study_named("geometry")(some, {"edits": edits})
    shown = {(row["edit"], row["directions"]): row for row in found["rows"]}
    assert shown["none", "none"]["t"] == pytest.approx(1)
    assert shown["none", "none"]["nearer_baseline"] == 0
    assert shown["projection", "main"]["t"] < 0.5
    assert shown["flip", "main"]["t"] < shown["projection", "main"]["t"] - 0.5
    # The affine edit puts the component where ordinary training prompts have it on average.
    assert abs(shown["affine", "main"]["t"]) < 0.3
    assert all(shown[edit, "random"]["t"] > 0.7 for edit in ("projection", "flip"))
    assert shown["flip", "main"]["t_at_the_end"] < 0.5
    assert found["landing"] == {
        edit: shown[edit, "main" if edit != "none" else "none"]["t"] for edit in found["landing"]
    }
    table = json.loads((some.folder / "geometry.json").read_text())
    assert len(table) == 7 * 2 * 4, "edits with controls, classes, and the points from layer 3 on"
    assert (some.folder / "geometry.csv").exists()
    assert (some.folder / "geometry.png").exists()


def test_a_layer_or_a_set_that_is_missing_is_named(lab):
    with pytest.raises(UsageError, match="layer 40 does not exist"):
        study_named("geometry")(lab(), {"edits": {"one": {}}, "layer": 40})
    with pytest.raises(UsageError, match=r"evaluate\.answered"):
        study_named("geometry")(lab(answered=None), {"edits": {"one": {}}})
