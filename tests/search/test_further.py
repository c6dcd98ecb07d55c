"""A further direction is what the edit's own directions leave of the difference."""

import numpy as np
import torch

from tests.helpers.small_families import small
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.runtime.hooks import hooked
from weight_edit.search.further import further_points
from weight_edit.search.point import Point
from weight_edit.search.strengths import Strengths


def test_the_new_direction_is_orthogonal_and_spans_the_difference_under_the_edit():
    model = small("llama")
    width, layers = model.anatomy.d_model, model.anatomy.n_layers
    rows = orthonormal_rows(torch.randn(2, width, generator=torch.Generator().manual_seed(1))).astype(np.float32)
    point = Point(rows=rows, strengths=Strengths.flat(layers, 0.7))
    refused, ordinary = [[5, 6, 7], [9, 8, 7, 6]], [[10, 11], [12, 13, 14], [15, 16]]
    found = further_points(model, point, refused, ordinary, range(1, layers))
    assert [each.facts["further_layer"] for each in found] == list(range(1, layers))

    def last(prompt: list[int], layer: int) -> np.ndarray:
        seen = {}
        block = model.model.get_submodule(model.anatomy.blocks[layer].module)
        handle = block.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(x=(args or [kwargs["hidden_states"]])[0]), with_kwargs=True
        )
        with torch.no_grad(), hooked(model.model, point.variant(model).hooks):
            model.model(torch.tensor([prompt]))
        handle.remove()
        return seen["x"][0, -1].double().numpy()

    for each in found:
        layer = each.facts["further_layer"]
        assert each.rows.shape == (3, width)
        np.testing.assert_allclose(each.rows @ each.rows.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(each.rows[:2], rows, atol=1e-6)
        difference = np.mean([last(p, layer) for p in refused], 0) - np.mean([last(p, layer) for p in ordinary], 0)
        within = each.rows.astype(np.float64).T @ (each.rows.astype(np.float64) @ difference)
        np.testing.assert_allclose(within, difference, atol=1e-4 * np.linalg.norm(difference))
        assert each.strengths == point.strengths


def test_a_difference_along_the_directions_alone_gives_none():
    model = small("llama")
    width, layers = model.anatomy.d_model, model.anatomy.n_layers
    whole = Point(rows=np.eye(width, dtype=np.float32), strengths=Strengths.flat(layers))
    assert further_points(model, whole, [[5, 6]], [[7, 8]], range(layers)) == []
