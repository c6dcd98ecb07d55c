"""The similarity score that needs no refusal tokens (arXiv 2506.00085)."""

import math
from dataclasses import replace

import pytest
import torch

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores, least_similar, released_scores
from weight_edit.directions.find import find_directions
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import SelectionRule, last_layer, select
from weight_edit.plan.hooks import hooks_of
from weight_edit.runtime.hooks import addition_hook, hooked

TARGET = [[5, 6, 7, 8], [5, 7, 9, 8], [6, 6, 9, 8]]
BASELINE = [[14, 15, 16, 8], [17, 15, 18, 8], [14, 19, 16, 8], [20, 15, 5, 8]]


def inputs_of_blocks(model, ids):
    seen = []

    def keep(_, args, kwargs):
        seen.append((args or (kwargs["hidden_states"],))[0][0, -2:].double())

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in model.model.layers]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(seen)


def literal_means(model, prompts, hooks):
    """The mean input of each block at the last two tokens, prompt by prompt, with hooks of torch alone."""
    total = torch.zeros(4, 2, 32, dtype=torch.float64)
    for ids in prompts:
        with hooked(model.model, hooks):
            total += inputs_of_blocks(model.model, ids)
    return total / len(prompts)


def test_the_score_literally(small_model):
    model = small_model("llama")
    targets = (sample("target", TARGET, TARGET[:2]), sample("target", TARGET, TARGET[2:]))
    given = problem_of(model, TARGET, BASELINE, [-2, -1], targets=targets)
    given = replace(given, baseline=sample("baseline", BASELINE, BASELINE))
    t, b = (literal_means(model, ids, []).flatten(1) for ids in (TARGET, BASELINE))
    similar = torch.cosine_similarity(t, b, dim=-1)
    lowest = int(similar.argmin())
    r = (t - b)[2, 32:]
    rows = torch.stack([r, torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)])
    candidates = [
        Candidate(position=-1, layer=2, rows=r[None], vector=r),
        Candidate(position=-1, layer=2, rows=rows),
        Candidate(position=-1, layer=0, rows=torch.zeros(1, 32)),
    ]
    found = cosmic_scores(given, candidates, hooks_of(model))

    def cos(x, y):
        return float(torch.cosine_similarity(x[lowest], y[lowest], dim=-1))

    ablated = literal_means(model, TARGET, hooks_of(model)(r[None])).flatten(1)
    both = literal_means(model, TARGET, hooks_of(model)(rows)).flatten(1)
    added = literal_means(model, BASELINE, [addition_hook(model, 2, r.float())]).flatten(1)
    assert found[0].total == pytest.approx(cos(ablated, b) + cos(added, t), abs=1e-5)
    assert found[1].total == pytest.approx(2 * cos(both, b), abs=1e-5)
    assert math.isnan(found[2].total)


def test_the_least_similar_tenth_of_the_layers():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 25, 6, generator=generator)
    baseline = target + 0.1 * torch.randn(2, 25, 6, generator=generator)
    baseline[:, 17], baseline[:, 4] = -target[:, 17], target[:, 5]
    assert least_similar(target, baseline) == [4, 17]
    assert least_similar(target[:, :9], baseline[:, :9]) == [4]


def test_refusal_is_found_without_refusal_tokens(organism):
    found = find_directions(
        organism, organism_set("refused"), organism_set("answered"), rule=SelectionRule(select="cosmic")
    )
    record = found.metadata
    assert record["refusal_tokens"] == []
    assert record["filter_prompts"] == "none"
    assert all(score["bypass"] is None for score in record["scores"])
    passing = [score for score in record["scores"] if score["rejected"] is None]
    best = max(passing, key=lambda score: score["cosmic"])
    assert (best["position"], best["layer"]) == (record["position"], record["layer"])
    assert share_refused(organism, "refused", found) < 0.1
    assert share_refused(organism, "answered", found) < 0.05


def test_any_concept_will_do(organism):
    sets = organism_set("answered-cooking"), organism_set("answered-repeat")
    found = find_directions(organism, *sets, rule=SelectionRule(select="cosmic"))
    assert found.metadata["separation"]["auc"] > 0.95
    best = max(score["cosmic"] for score in found.metadata["scores"] if score["cosmic"] is not None)
    assert 1 < best <= 2
    # It is another direction than refusal's, so ablating it leaves refusals alone.
    assert share_refused(organism, "refused", found) > 0.9


def literal_outputs(model, prompts, hooks):
    """The stream behind each block at the last token, prompt by prompt; the last is what the final norm makes of it."""
    rows = []
    for ids in prompts:
        with hooked(model.model, hooks), torch.no_grad():
            states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # transformers gives the embedding first, and the last block's output behind the norm.
        rows.append([state[0, -1].double() for state in states[1:]])
    return rows


def literal_mean(rows, layers):
    total = torch.zeros_like(rows[0][0])
    for row in rows:
        for layer in layers:
            total += row[layer]
    return total / (len(rows) * len(layers))


def literal_cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_released_score_literally(small_model, monkeypatch, share):
    model = small_model("llama")
    # One layer, two, and all of them, so that the last one's norm matters and layers are pooled.
    monkeypatch.setattr("weight_edit.directions.cosmic.SHARE", share)
    train_target, train_baseline = [[9, 6, 11, 8], [5, 30, 9, 31]], [[12, 15, 16, 33], [17, 15, 18, 34], [19, 4, 9, 7]]
    given = problem_of(model, (), (), [-2, -1], targets=(sample("target", train_target, TARGET),))
    given = replace(given, baseline=sample("baseline", train_baseline, BASELINE))
    r = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    candidates = [
        Candidate(position=-1, layer=2, rows=r[None], vector=r),
        Candidate(position=-1, layer=1, rows=r[None]),
        Candidate(position=-1, layer=0, rows=torch.zeros(1, 32)),
    ]
    found = released_scores(given, candidates, hooks_of(model))

    trained = [literal_outputs(model, prompts, []) for prompts in (train_target, train_baseline)]
    alike = [literal_cosine(*(literal_mean(rows, [layer]) for rows in trained)) for layer in range(4)]
    layers = sorted(range(4), key=lambda layer: alike[layer])[: int(share * 4)]
    target, baseline = (literal_mean(literal_outputs(model, prompts, []), layers) for prompts in (TARGET, BASELINE))
    ablated = literal_mean(literal_outputs(model, TARGET, hooks_of(model)(r[None])), layers)
    added = literal_mean(literal_outputs(model, BASELINE, [addition_hook(model, 2, r.float())]), layers)
    expected = literal_cosine(ablated, baseline), literal_cosine(added, target)
    assert (found[0].ablated, found[0].added) == pytest.approx(expected, abs=1e-5)
    assert found[0].total == pytest.approx(sum(expected), abs=1e-5)
    assert (found[1].ablated, found[1].added) == pytest.approx((expected[0], expected[0]), abs=1e-5)
    assert math.isnan(found[2].total)
    ours = cosmic_scores(given, candidates, hooks_of(model))
    assert abs(ours[0].total - found[0].total) > 1e-3


def score(position, layer, ablated, added):
    return CandidateScore(
        position=position,
        layer=layer,
        bypass=None,
        induce=None,
        kl=0.01,
        norm=1.0,
        cosmic=ablated + added,
        cosmic_ablated=ablated,
        cosmic_added=added,
    )


def test_at_the_last_position_layers_behind_the_peaks_of_others_are_dropped():
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        values = torch.rand(2, 4, 6, generator=generator, dtype=torch.float64)
        table = [
            score(position, layer, *values[:, position + 4, layer].tolist())
            for position in range(-4, 0)
            for layer in range(6)
        ]
        limits = values[:, :3].argmax(dim=-1).median(dim=-1).values
        kept = [row for row in table if row.position != -1 or not (row.layer > limits[0] and row.layer > limits[1])]
        assert last_layer(table) == int(limits.max())
        best = max(kept, key=lambda row: row.cosmic)
        rule = SelectionRule(select="cosmic-released", max_layer_fraction=None)
        chosen = select(table, rule, 6)
        assert chosen.chosen == best
        assert len(chosen.rejections) == len(table) - len(kept)
        plain = select(table, replace(rule, select="cosmic"), 6)
        assert plain.chosen == max(table, key=lambda row: row.cosmic)
    # With no other position there is nothing to compare with.
    alone = [row for row in table if row.position == -1]
    assert last_layer(alone) is None
    assert not select(alone, rule, 6).rejections


def test_the_released_form_finds_refusal_and_can_be_taken_up_again(organism, tmp_path):
    def run(**changes):
        return find_directions(
            organism,
            "organism:refused:train",
            "organism:answered:train",
            n_train=24,
            n_validation=8,
            rule=SelectionRule(select="cosmic-released"),
            scores=tmp_path / "d.find",
            **changes,
        )

    found = run()
    again = run(resume=True)
    assert again.metadata["scores"] == found.metadata["scores"]
    assert found.metadata["refusal_tokens"] == []
    passing = [row for row in found.metadata["scores"] if row["rejected"] is None]
    best = max(passing, key=lambda row: row["cosmic"])
    assert best["cosmic"] == pytest.approx(best["cosmic_ablated"] + best["cosmic_added"])
    assert (best["position"], best["layer"]) == (found.metadata["position"], found.metadata["layer"])
    assert share_refused(organism, "refused", found) < 0.2
