"""The similarity score that needs no refusal tokens (arXiv 2506.00085)."""

import math
from dataclasses import replace

import pytest
import torch

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores, least_similar
from weight_edit.directions.find import find_directions
from weight_edit.directions.selection import SelectionRule
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
    assert found[0] == pytest.approx(cos(ablated, b) + cos(added, t), abs=1e-5)
    assert found[1] == pytest.approx(2 * cos(both, b), abs=1e-5)
    assert math.isnan(found[2])


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
    assert not record["filter_prompts"]
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
