"""Activations of a batch equal those of each prompt alone, at every point of the stream."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.runtime.activations import ResidualStatistics, each_residual, residuals
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.points import Point, all_points

FAMILIES = ["llama", "gpt2", "gemma3"]
POSITIONS = [-1, -2, -5]


def prompts(lengths=(5, 11, 7, 8, 12, 30, 9)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 30, (length,), generator=generator).tolist() for length in lengths]


def alone(model, sequence):
    """Every point of one prompt, from one forward pass without padding: {point: (tokens, d_model)}.

    Block inputs and outputs come from transformers itself; between attention and MLP the stream is what the
    norm of the MLP reads.
    """
    mids = {}
    handles = [
        model.model.get_submodule(block.mid).register_forward_pre_hook(
            lambda module, args, layer=block.layer: mids.__setitem__(layer, args[0][0])
        )
        for block in model.anatomy.blocks
    ]
    last = model.anatomy.final_norm
    handles.append(
        model.model.get_submodule(last).register_forward_pre_hook(
            lambda module, args: mids.__setitem__("last", args[0][0])
        )
    )
    with torch.no_grad():
        states = model.model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    n = model.anatomy.n_layers
    found = {Point("resid_pre", layer): states[layer][0] for layer in range(n)}
    found |= {Point("resid_mid", layer): mids[layer] for layer in range(n)}
    # transformers gives the last state after the final norm; the stream itself is what that norm reads.
    outputs = [*(states[layer][0] for layer in range(1, n)), mids["last"]]
    return found | {Point("resid_post", layer): outputs[layer] for layer in range(n)}


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_activations_equal_those_of_each_prompt_alone(small_model, family):
    model, sequences = small_model(family), prompts()
    points = all_points(model)
    assert len(points) == 3 * 4
    found = residuals(model, sequences, points, POSITIONS, batch_size=4)
    assert found.dtype == torch.float32
    for row, sequence in enumerate(sequences):
        expected = alone(model, sequence)
        for index, point in enumerate(points):
            torch.testing.assert_close(found[row, :, index], expected[point][POSITIONS], atol=1e-5, rtol=1e-5)


def test_points_in_any_order_and_twice(small_model):
    model, sequences = small_model("llama"), prompts()
    points = [Point("resid_post", 2), Point("resid_pre", 0), Point("resid_post", 2)]
    found = residuals(model, sequences, points, [-2])
    assert torch.equal(found[:, :, 0], found[:, :, 2])
    assert torch.equal(found[:, :, 1:2], residuals(model, sequences, [Point("resid_pre", 0)], [-2]))


def test_nothing_deeper_than_the_asked_block_runs(small_model):
    model, ran = small_model("llama"), []

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())

    before = hooks()

    def note(name):
        def fn(x):
            ran.append(name)
            return x

        return fn

    watch = [Hook(block.module, "input", note(block.layer)) for block in model.anatomy.blocks]
    watch.append(Hook(model.anatomy.unembedding, "input", note("unembedding")))
    with hooked(model.model, watch):
        residuals(model, [[5, 6]], [Point("resid_post", 1)], [-1])
    assert ran == [0, 1]
    with hooked(model.model, watch):
        residuals(model, [[5, 6]], [Point("resid_post", 3)], [-1])
    assert ran == [0, 1, 0, 1, 2, 3]
    assert hooks() == before


def test_activations_see_the_edit_of_an_enclosing_hook(small_model):
    model = small_model("llama")
    plain = residuals(model, [[5, 6]], [Point("resid_pre", 1), Point("resid_pre", 2)], [-1])
    shift = Hook(model.anatomy.blocks[1].module, "input", lambda x: x + 1)
    with hooked(model.model, [shift]):
        moved = residuals(model, [[5, 6]], [Point("resid_pre", 1), Point("resid_pre", 2)], [-1])
    torch.testing.assert_close(moved[:, :, 0], plain[:, :, 0] + 1)
    assert not torch.allclose(moved[:, :, 1], plain[:, :, 1])


def test_wrong_positions_and_points_are_named(small_model):
    model, point = small_model("llama"), Point("resid_pre", 0)
    with pytest.raises(UsageError, match="must be negative"):
        residuals(model, [[5]], [point], [0])
    with pytest.raises(UsageError, match="prompt 1 has 1 tokens, so position -2"):
        residuals(model, [[5, 6], [5]], [point], [-2])
    with pytest.raises(UsageError, match=r"resid_pre\.4: random llama has blocks 0 to 3"):
        residuals(model, [[5]], [Point("resid_pre", 4)], [-1])


def test_a_parallel_block_has_no_middle(small_model):
    from dataclasses import replace

    model = small_model("llama")
    blocks = tuple(replace(block, mid=None) for block in model.anatomy.blocks)
    parallel = replace(model, anatomy=replace(model.anatomy, blocks=blocks))
    assert {point.kind for point in all_points(parallel)} == {"resid_pre", "resid_post"}
    with pytest.raises(UsageError, match=r"resid_mid\.1: model\.layers\.1 is parallel"):
        residuals(parallel, [[5]], [Point("resid_mid", 1)], [-1])


def test_points_sort_as_they_are_computed():
    points = [Point(kind, layer) for kind in ("resid_post", "resid_mid", "resid_pre") for layer in (1, 0)]
    names = [str(point) for point in sorted(points)]
    assert names == [f"resid_{kind}.{layer}" for layer in (0, 1) for kind in ("pre", "mid", "post")]


def test_running_out_of_memory_changes_nothing(small_model):
    model, sequences = small_model("llama"), prompts((9,) * 12)
    points = [Point("resid_pre", 2)]
    expected = residuals(model, sequences, points, [-1], batch_size=2)

    def full(x):
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    with hooked(model.model, [Hook("model.layers.1", "input", full)]):
        found = residuals(model, sequences, points, [-1], batch_size=8)
    assert torch.equal(found, expected)


def test_statistics_equal_those_of_all_activations_at_once(small_model):
    model, sequences = small_model("llama"), prompts()
    points = [Point("resid_pre", 1), Point("resid_post", 3)]
    x = residuals(model, sequences, points, POSITIONS).double()
    found = ResidualStatistics(with_covariance=True)
    for batch in x.split(2):
        found.update(batch)
    torch.testing.assert_close(found.mean, x.mean(0), atol=1e-6, rtol=1e-6)
    centred = (x - x.mean(0))[:, 1, 0]
    torch.testing.assert_close(found.covariance[1, 0], centred.T @ centred / len(x), atol=1e-6, rtol=1e-6)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.floats(0, 1e4), st.integers(0, 2**31))
def test_statistics_do_not_depend_on_how_data_is_cut_up(sizes, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 2, 1, 3, generator=generator, dtype=torch.float64) + offset
    parts, merged = [], ResidualStatistics(with_covariance=True)
    for chunk in x.split(sizes):
        part = ResidualStatistics(with_covariance=True)
        part.update(chunk)
        parts.append(part)
    for part in parts:
        merged.merge(part)
    assert merged.count == len(x)
    torch.testing.assert_close(merged.mean, x.mean(0))
    centred = x - x.mean(0)
    expected = torch.einsum("npld,nple->plde", centred, centred) / len(x)
    torch.testing.assert_close(merged.covariance, expected, atol=1e-9, rtol=1e-6)


def test_statistics_without_data_or_covariance():
    empty = ResidualStatistics()
    empty.update(torch.empty(0, 1, 1, 2))
    assert (empty.count, empty.mean) == (0, None)
    with pytest.raises(ValueError, match="no covariance"):
        _ = empty.covariance
    with pytest.raises(ValueError, match="cannot be merged"):
        empty.merge(ResidualStatistics(with_covariance=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_residual_shows_every_real_token_of_every_point_once(small_model, family):
    model, sequences = small_model(family), prompts()
    points = all_points(model)
    largest, tokens = {}, dict.fromkeys(points, 0)

    def visit(point, x, mask):
        assert x.shape[:2] == mask.shape
        tokens[point] += int(mask.sum())
        largest[point] = max(largest.get(point, 0.0), float(x[mask].norm(dim=-1).max()))

    each_residual(model, sequences, points, visit, batch_size=3)
    assert set(tokens.values()) == {sum(map(len, sequences))}
    singles = [alone(model, sequence) for sequence in sequences]
    for point in points:
        expected = max(float(single[point].norm(dim=-1).max()) for single in singles)
        assert largest[point] == pytest.approx(expected, rel=1e-5)
