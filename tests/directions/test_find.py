"""A search records what it chose, from which prompts and by which scores, and repeats itself by seed."""

import json

import pytest
import torch

from tests.helpers.direction_samples import problem_of
from weight_edit.directions import find, metering, problem, registry
from weight_edit.directions.directions import load_directions
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.selection import SelectionRule
from weight_edit.directions.separation import Separation, auc
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.points import Point
from weight_edit.utils.settings import Section

FREE = SelectionRule(max_kl=None, min_induce=None)
SIZES = {"n_train": 24, "n_validation": 8}


def run(found, **options):
    options = {"refusal_tokens": found.tokens, "rule": FREE, **SIZES, **options}
    return find_directions(found.model, found.target, found.baseline, **options)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_direction_with_its_whole_record(behaviour, family, tmp_path):
    found = behaviour(family)
    directions = run(found)
    record = directions.metadata
    directions.save(tmp_path / "d.safetensors")
    loaded = load_directions(tmp_path / "d.safetensors")
    assert loaded.metadata == json.loads(json.dumps(record))
    assert torch.equal(loaded.direction, directions.direction)

    positions, layers = record["positions"], found.model.anatomy.n_layers
    assert directions.candidates.shape == (len(positions), layers, 32)
    difference = directions.candidates[positions.index(record["position"]), record["layer"]]
    torch.testing.assert_close(directions.direction[0], difference / difference.norm())
    assert [(s["position"], s["layer"]) for s in record["scores"]] == [
        (position, layer) for position in positions for layer in range(layers)
    ]
    passing = [s for s in record["scores"] if s["rejected"] is None]
    best = min(passing, key=lambda s: s["bypass"])
    assert (best["position"], best["layer"]) == (record["position"], record["layer"])
    assert all(s["rejected"] == "layer 3 above 2" for s in record["scores"] if s["layer"] == 3)
    assert record["prompts"]["target"]["sha256"] == found.target.sha256
    assert record["prompts"]["target"]["train_kept"] == 24
    assert record["refusal_metric"]["target"] > 0 > record["refusal_metric"]["baseline"]
    assert record["separation"]["norm"] == pytest.approx(float(difference.norm()), rel=1e-5)
    assert not record["best_effort"]


def test_candidates_are_differences_of_means_of_the_drawn_prompts(behaviour):
    found = behaviour("llama")
    chat_format = ChatFormat(found.model.tokenizer)
    directions = run(found, filter_prompts=False, seed=5)
    means = []
    for prompts in (found.target, found.baseline):
        train, _ = prompts.split((24, 8), 5)
        ids = [chat_format.encode(prompt) for prompt in train.prompts]
        points = [Point("resid_pre", layer) for layer in range(4)]
        means.append(residuals(found.model, ids, points, [-2, -1]).double().mean(0))
    expected = means[0] - means[1]
    assert (directions.candidates[:, 0] == 0).all()
    torch.testing.assert_close(directions.candidates[:, 1:].double(), expected[:, 1:], atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_file_and_another_one_other_prompts(behaviour, tmp_path):
    found = behaviour("llama")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(found, seed=seed).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_refusal_tokens_are_found_where_none_are_given(behaviour):
    found = behaviour("llama")
    record = run(found, refusal_tokens=None, tokens_from="difference", filter_prompts="none").metadata
    assert 1 <= len(record["refusal_tokens"]) <= 20
    words = run(found, refusal_tokens=["sorry", 7], filter_prompts=False).metadata["refusal_tokens"]
    assert {"sorry"} < {token["text"] for token in words}
    assert len(words) == 2


def test_when_no_candidate_passes(behaviour):
    found = behaviour("llama")
    rule = SelectionRule(max_kl=1e-9, min_induce=None)
    with pytest.raises(UnsupportedError) as caught:
        run(found, rule=rule)
    text = str(caught.value)
    assert text.startswith("none of 8 candidates keeps the bounds")
    assert "zero norm for 2" in text
    assert "KL above 1e-09 for 4" in text
    assert "layer above 2 for 2" in text
    assert "`best_effort=True` (in a recipe, best_effort: true)" in text
    directions = run(found, rule=rule, best_effort=True)
    assert directions.metadata["best_effort"]
    assert "above 1e-09" in directions.metadata["missed"]
    assert any("least bad" in warning for warning in directions.metadata["warnings"])


def test_prompts_the_model_treats_otherwise_are_dropped_and_counted(behaviour):
    found = behaviour("llama")
    mixed = PromptSet.of("mixed", [*found.target.prompts[:40], *found.baseline.prompts[:20]])
    rest = PromptSet.of("rest", found.baseline.prompts[20:])
    options = {"refusal_tokens": found.tokens, "rule": FREE, "n_train": 40, "n_validation": 20}
    record = find_directions(found.model, mixed, rest, **options).metadata["prompts"]
    counts = record["target"]
    assert (counts["train"], counts["validation"]) == (40, 20)
    assert counts["train_kept"] + counts["validation_kept"] == 40
    swapped = {**options, "n_train": 20, "n_validation": 8}
    with pytest.raises(UsageError, match=r"refuses only 0 of 20 .* 0 of 8 .*in a recipe, filter_prompts: none"):
        find_directions(found.model, found.baseline, found.target, **swapped)


def test_small_sets_are_split_four_to_one_and_said_so(behaviour):
    found = behaviour("llama")
    options = {"refusal_tokens": found.tokens, "rule": FREE, "filter_prompts": False}
    target, baseline = found.target.take(40), found.baseline.take(15)
    record = find_directions(found.model, target, baseline, **options).metadata
    assert (record["prompts"]["target"]["train"], record["prompts"]["target"]["validation"]) == (32, 8)
    assert (record["prompts"]["baseline"]["train"], record["prompts"]["baseline"]["validation"]) == (11, 4)
    assert sum("fewer than 128 + 32" in warning for warning in record["warnings"]) == 2
    with pytest.raises(UsageError, match="7 for training and 4 for validation are too few"):
        find_directions(found.model, target, baseline.take(11), **options)
    with pytest.raises(UsageError, match="are too few"):
        find_directions(found.model, target, baseline.take(2), **options)


def test_validation_sets_of_their_own(behaviour):
    found = behaviour("llama")
    train, held = found.target.split((20, 10))
    record = run(found, validation_target=held, filter_prompts=False, n_validation=10).metadata
    assert record["prompts"]["target"]["validation_sha256"] == held.sha256
    assert any("both the training and the validation set" in warning for warning in record["warnings"])
    apart = find_directions(
        found.model,
        train,
        found.baseline,
        validation_target=held,
        refusal_tokens=found.tokens,
        rule=FREE,
        **SIZES,
    ).metadata
    assert not any("both the training" in warning for warning in apart["warnings"])
    assert apart["prompts"]["target"]["validation"] == 8


def test_one_set_in_both_roles_is_refused_and_an_overlap_is_said(behaviour):
    found = behaviour("llama")
    with pytest.raises(UsageError, match="target and baseline must differ"):
        find_directions(found.model, found.target, found.target)
    overlapping = PromptSet.of("overlapping", [*found.baseline.prompts, found.target.prompts[0]])
    record = find_directions(
        found.model, found.target, overlapping, refusal_tokens=found.tokens, rule=FREE, **SIZES
    ).metadata
    assert "1 prompts are both target and baseline" in record["warnings"]


def test_an_unknown_method_lists_the_known_ones(behaviour):
    with pytest.raises(UsageError, match=r"no method 'magic'.*mean-difference"):
        run(behaviour("llama"), method="magic")


def test_a_finder_is_registered_by_name_once(monkeypatch):
    known = registry.finders()
    monkeypatch.setattr(registry.FINDERS, "_known", dict(known))

    class Options(Section):
        k: int = 2

    @registry.finder("mine")
    def mine(problem, options: Options):
        """Mine."""
        return [options.k]

    found = registry.finder_named("mine")
    assert (found.function, found.summary) == (mine, "Mine.")
    assert found(None) == [2]
    assert found(None, {"k": 3}) == [3]
    with pytest.raises(UsageError, match="method mine: 'l' is not a key"):
        found(None, {"l": 3})
    with pytest.raises(ValueError, match="two of the method"):
        registry.finder("mine")(mine)


def test_rounding_is_no_direction():
    same = torch.full((3, 1, 1, 4), 0.1).double()
    other = same.flip(0) * (1 + 1e-12)
    assert (mean_difference(same.mean(dim=0), other.mean(dim=0)) == 0).all()
    same[0] += 0.4
    assert mean_difference(same.mean(dim=0), other.mean(dim=0)).flatten().tolist() == pytest.approx([0.4 / 3] * 4)


def test_auc_counts_pairs():
    assert auc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 1.0
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([3.0])) == 0.0
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])) == 0.625


def test_short_and_blurred_directions_are_warned_of():
    said = []
    Separation(
        auc=0.99,
        accuracy=1.0,
        norm=5.0,
        relative_norm=0.4,
        target_mean_norm=1.0,
        baseline_mean_norm=1.0,
        target_projection=1.0,
        baseline_projection=0.0,
    ).complain(said.append)
    assert not said
    Separation(
        auc=0.6,
        accuracy=0.6,
        norm=0.1,
        relative_norm=0.01,
        target_mean_norm=1.0,
        baseline_mean_norm=1.0,
        target_projection=1.0,
        baseline_projection=0.0,
    ).complain(said.append)
    assert len(said) == 2
    assert "too small to act" in said[0]
    assert "AUC 0.60" in said[1]


def test_ablation_hooks_clear_the_stream(behaviour):
    from weight_edit.runtime.activations import each_residual
    from weight_edit.runtime.hooks import hooked
    from weight_edit.runtime.points import all_points

    found = behaviour("gemma3")
    direction = run(found).direction
    leaks = []
    chat_format = ChatFormat(found.model.tokenizer)
    ids = [chat_format.encode(prompt) for prompt in found.target.prompts[:5]]

    def visit(point, x, mask):
        leaks.append(float(((x @ direction[0]).abs() / x.norm(dim=-1))[mask].max()))

    with hooked(found.model.model, ablation_hooks(found.model, direction)):
        each_residual(found.model, ids, all_points(found.model), visit)
    assert max(leaks) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("by", ["filter", "tokens"])
def test_prompts_that_are_run_for_their_first_token_are_not_run_again_for_their_stream(
    behaviour, monkeypatch, by, family
):
    found = behaviour(family)
    given = {**SIZES, "n_more": 0, "positions": "last", "rule": FREE}
    # First tokens of training prompts are asked for where these are filtered by them, or the tokens are from them.
    given |= (
        {"refusal_tokens": found.tokens} if by == "filter" else {"tokens_from": "difference", "filter_prompts": "none"}
    )
    with monkeypatch.context() as patched:
        patched.setattr(find, "_streams", lambda problem: None)
        apart = find_directions(found.model, found.target, found.baseline, **given)
    monkeypatch.setattr(problem, "residuals_under", None)
    together = find_directions(found.model, found.target, found.baseline, **given)
    torch.testing.assert_close(together.candidates, apart.candidates, rtol=1e-5, atol=1e-6)
    for name in ("baseline_mean", "target_mean"):
        torch.testing.assert_close(together.tensors[name], apart.tensors[name], rtol=1e-5, atol=1e-6)
    for name in ("layer", "position", "prompts", "refusal_tokens"):
        assert together.metadata[name] == apart.metadata[name]
    assert together.metadata["separation"] == pytest.approx(apart.metadata["separation"], abs=1e-5)


def test_the_opening_of_an_answer_leaves_the_stream_of_the_prompt_as_it_is(small_model):
    model = small_model("llama")
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14]]
    read = problem_of(model, prompts, prompts, [-2, -1])
    streams = metering.Streams(layers=read.layers, positions=[-2, -1], known=read.known)
    meter = metering.Meter(
        model=model,
        opening=[15, 16],
        batch_size=None,
        answers=None,
        filter="none",
        streams=streams,  # type: ignore
    )
    (values,) = meter.logprobs([prompts])
    opened = [[*ids, 15, 16] for ids in prompts]
    torch.testing.assert_close(values, next_token_logprobs(model, opened), rtol=1e-5, atol=1e-5)
    expected = problem_of(model, prompts, prompts, [-2, -1]).target()
    assert len(read.known) == 2
    # Rounding of sums as large as the largest entries, which another processor adds up in another order.
    noise = 16 * torch.finfo(torch.float32).eps * float(expected.abs().max())
    torch.testing.assert_close(read.target(), expected, rtol=1e-5, atol=noise)
    assert not read.known
