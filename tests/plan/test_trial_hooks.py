"""Edits tried under hooks, those that cannot be baked among them, against what their formulas say."""

import numpy as np
import pytest
import torch

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UsageError
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.step import EditStep
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.points import Point, all_points

PROMPTS = [[5, 9, 11], [7, 8, 20, 30, 6], [12, 40]]
AT = Point("resid_pre", 2)


def directions(count=2, seed=0):
    generator = np.random.default_rng(seed)
    rows = orthonormal_rows(generator.standard_normal((count, 32)))
    tensors = {
        "vector": generator.standard_normal(32),
        "baseline_mean": generator.standard_normal(32),
        "target_mean": generator.standard_normal(32),
    }
    return DirectionRows(rows, {"layer": 2, "position": -1}, tensors)


def stream(model, steps, point=AT, **options):
    with hooked(model.model, trial_hooks(model, steps, **options)):
        return residuals(model, PROMPTS, [point], [-1, -2], description=None)[:, :, 0].double()


def expected(kind, x, known):
    v = torch.from_numpy(known.rows).double()
    along = x @ v.T
    if kind == "ablate":
        return x - along @ v
    if kind == "reflect":
        return x - 2 * along @ v
    if kind == "add":
        return x + torch.from_numpy(known.tensors["vector"]).double()
    return x - along.clamp(min=0) @ v


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["ablate", "reflect", "add", "rectify"])
def test_what_is_made_at_a_layer_is_made_at_that_input_alone(small_model, family, kind):
    model, known = small_model(family), directions()
    step = EditStep(directions=known, kind=kind, at=(AT.layer,))
    before = stream(model, [])
    assert torch.allclose(stream(model, [step]), expected(kind, before, known), atol=1e-4)
    earlier = Point("resid_post", AT.layer - 1)
    assert torch.equal(stream(model, [step], earlier), stream(model, [], earlier))


def test_the_whole_stream_has_nothing_left_along_ablated_directions(small_model):
    model, known = small_model("llama"), directions()
    for point in all_points(model):
        x = stream(model, [EditStep(directions=known, kind="ablate")], point, embeddings="untie")
        assert (x @ torch.from_numpy(known.rows).double().T).abs().max() < 1e-4


def test_steps_are_made_one_after_the_other(small_model):
    model, known = small_model("llama"), directions()
    added, ablated = EditStep(directions=known, kind="add", at=(2,)), EditStep(directions=known, kind="ablate", at=(2,))
    before = stream(model, [])
    first = expected("ablate", expected("add", before, known), known)
    second = expected("add", expected("ablate", before, known), known)
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.allclose(stream(model, [added, ablated]), first, atol=1e-4)
    assert torch.allclose(stream(model, [ablated, added]), second, atol=1e-4)


@pytest.mark.parametrize("kind", ["ablate", "add", "reflect"])
def test_a_layer_that_is_not_there_is_named(small_model, kind):
    with pytest.raises(UsageError, match="9"):
        trial_hooks(small_model("llama"), [EditStep(directions=directions(), kind=kind, at=(9,))])
