"""Directions by gradient search on the model's own texts (arXiv 2502.17420)."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders._own_texts import Said
from weight_edit.directions.finders.gradient import (
    GradientOptions,
    Losses,
    ablating,
    batches_of,
    evaluated,
    mixtures,
    orthonormalised,
    searched,
)
from weight_edit.directions.registry import finder_named
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime.gradients import beside_weights
from weight_edit.runtime.hooks import hooked

PROMPTS = [(5, 6, 7, 8), (14, 15, 16, 9, 10, 8), (20, 15, 8)]
TEXTS = [(9, 11, 4), (12,), (17, 18)]


def losses_of(model, layer=2, length=3.0):
    said = [Said(prompt, text) for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    turned = [Said(prompt, text) for prompt, text in zip(PROMPTS, TEXTS[::-1], strict=True)]
    return Losses(model, layer, length, {"answer": said, "refuse": turned, "retain": said})


def directions(count, seed=0):
    drawn = torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def logprobs(model, hooks, text):
    with hooked(model.model, hooks), torch.no_grad():
        logits = model.model(torch.tensor([[*text.prompt, *text.text]])).logits[0]
    return logits.double().log_softmax(-1)[len(text.prompt) - 1 : -1]


def taken_off(u):
    return lambda _, args, output: output - (output @ u)[..., None] * u


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_ablation_at_the_streams_points_is_that_of_all_that_is_written(small_model, family):
    model = small_model(family)
    (u,) = directions(1)
    ids = torch.tensor([[5, 6, 7, 8], [14, 15, 16, 9]])
    with torch.no_grad():
        if family == "gemma3":
            # The norms behind the writers are what writes to the stream.
            blocks = model.model.model.layers
            places = [model.model.model.embed_tokens]
            places += [getattr(b, f"post_{part}_layernorm") for b in blocks for part in ("attention", "feedforward")]
            handles = [place.register_forward_hook(taken_off(u)) for place in places]
            expected = model.model(ids).logits
            for handle in handles:
                handle.remove()
        else:
            with hooked(model.model, ablation_hooks(model, u[None])):
                expected = model.model(ids).logits
        with hooked(model.model, ablating(model, u.expand(2, -1))):
            found = model.model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - model.model(ids).logits).abs().max() > 0.01


def test_the_losses_literally_each_prompt_with_a_direction_of_its_own(small_model):
    model, u = small_model("llama"), directions(3)
    losses = losses_of(model)
    sums = dict.fromkeys(losses.texts, 0.0)
    for row in range(3):
        ablated = ablation_hooks(model, u[row][None])
        texts = {part: losses.texts[part][row] for part in losses.texts}
        for part, hooks in (("answer", ablated), ("refuse", None)):
            wanted = torch.tensor(texts[part].text)
            if hooks is None:
                block = model.model.model.layers[2]
                handle = block.register_forward_pre_hook(
                    lambda _, args, row=row: (args[0] + 3.0 * u[row], *args[1:]) if args else None
                )
                values = logprobs(model, [], texts[part])
                handle.remove()
            else:
                values = logprobs(model, hooks, texts[part])
            sums[part] -= float(values.gather(-1, wanted[:, None]).sum())
        base, other = logprobs(model, [], texts["retain"]), logprobs(model, ablated, texts["retain"])
        sums["retain"] += float((base.exp() * (base - other)).sum())
    for part, total in sums.items():
        count = sum(len(text.text) for text in losses.texts[part])
        with torch.no_grad():
            assert float(losses.of(part, [0, 1, 2], u)) == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("part", ["answer", "refuse", "retain"])
def test_gradients_are_those_of_finite_differences(small_model, family, part):
    model, step = small_model(family), 1e-2
    losses = losses_of(model)
    u, along = directions(3, seed=1), directions(3, seed=2)
    rows = [0, 1, 2]
    leaf = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(losses.of(part, rows, leaf), leaf)
    with torch.no_grad():
        ahead, behind = (float(losses.of(part, rows, u + sign * step * along)) for sign in (1, -1))
    assert float((slope * along).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=0.05, abs=2e-3)


def test_weights_take_no_gradients_meanwhile_and_are_as_before_afterwards(small_model):
    model = small_model("gpt2")
    first = next(model.model.parameters())
    first.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.model.parameters()]
    with beside_weights(model):
        required = {name for name, parameter in model.model.named_parameters() if parameter.requires_grad}
        assert required <= {model.anatomy.unembedding_weight, model.anatomy.embedding_weight}
    assert [parameter.requires_grad for parameter in model.model.parameters()] == before
    assert before[0] is False
    assert any(before)
    first.requires_grad_(True)


def test_the_search_lowers_the_loss_and_keeps_rows_orthonormal(small_model):
    losses, options = losses_of(small_model("llama")), GradientOptions(steps=25, batch=3, dimension=2, rate=0.05)
    start = directions(2)
    with beside_weights(losses.model):
        found = searched(losses, start, options, 0)
        again = searched(losses, start, options, 0)
        before = evaluated(losses, orthonormalised(start), options)
        after = evaluated(losses, found, options)
    assert torch.equal(found, again)
    assert all(parameter.grad is None for parameter in losses.model.model.parameters())
    torch.testing.assert_close(found @ found.T, torch.eye(2))
    assert after["total"] < before["total"] - 0.05
    assert after["total"] == pytest.approx(after["answer"] + 0.2 * after["refuse"] + after["retain"])


class Opaque(Losses):
    def of(self, part, rows, directions):
        return super().of(part, rows, directions).detach()


def test_a_model_without_gradients_is_refused(small_model):
    known = losses_of(small_model("llama"))
    opaque = Opaque(known.model, known.layer, known.length, known.texts)
    with pytest.raises(UnsupportedError, match="lets no gradients through"):
        searched(opaque, directions(1), GradientOptions(steps=1), 0)


def test_mixtures_are_rows_in_turn_and_unit_points_of_the_cone():
    mixed = mixtures(16, 3, torch.Generator().manual_seed(0))
    assert mixed[:8].tolist() == torch.eye(3)[torch.arange(8) % 3].tolist()
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(16))
    assert (mixed >= 0).all()
    assert (mixed[8:] > 0).all()
    assert mixtures(4, 1, torch.Generator()).tolist() == [[1.0]] * 4


def test_batches_show_each_text_once_before_any_again():
    turns = batches_of(10, 5, torch.Generator().manual_seed(0))
    for _ in range(3):
        assert sorted(next(turns) + next(turns)) == list(range(10))
    assert sorted(next(batches_of(3, 16, torch.Generator()))) == [0, 1, 2]


def test_one_candidate_at_the_layer_that_was_asked_for(small_model):
    ids = [list(prompt) for prompt in PROMPTS]
    given = problem_of(small_model("llama"), ids, [[14, 15, 9, 8], [17, 15, 18, 8]], [-2, -1], tokens=(9, 12))
    given = replace(
        given,
        targets=(sample("target", ids, ids),),
        baseline=sample("baseline", given.baseline.train, given.baseline.train),
    )
    options = {"steps": 2, "tokens": 3, "layer": 2, "dimension": 2, "start": "random"}
    (found,) = finder_named("gradient")(given, options)
    assert (found.layer, found.position in (-2, -1)) == (2, True)
    assert found.rows.shape == (2, 32)
    assert set(found.facts["before"]) == {"answer", "refuse", "retain", "total"}
    (again,) = finder_named("gradient")(given, options)
    assert torch.equal(found.rows, again.rows)
    with pytest.raises(UsageError, match="layer 9 does not exist"):
        finder_named("gradient")(given, {**options, "layer": 9})


def test_on_the_organism_a_random_start_learns_to_ablate_refusal(organism):
    found = find_directions(
        organism,
        organism_set("refused"),
        organism_set("answered"),
        method="rdo",
        options={"steps": 16, "tokens": 6, "start": "random", "rate": 0.03},
        n_train=64,
        n_validation=16,
        best_effort=True,
    )
    assert found.metadata["method"] == "gradient"
    facts = found.metadata["facts"]
    assert facts["after"]["total"] < 0.6 * facts["before"]["total"]
    assert share_refused(organism, "refused", found) < 0.5
    assert share_refused(organism, "answered", found) < 0.05
