"""Over-refusal's direction without the refusal direction's part (arXiv 2410.03415)."""

import pytest
import torch

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.find import find_directions
from weight_edit.directions.registry import finder_named
from weight_edit.directions.vectors import cosine, without_span
from weight_edit.errors import UsageError

TARGET = [[5, 6, 7, 8], [5, 7, 9, 8], [6, 6, 9, 8], [11, 6, 7, 8]]
OTHER = [[9, 10, 11, 8], [12, 10, 7, 8], [9, 13, 11, 8]]
BASELINE = [[14, 15, 16, 8], [17, 15, 18, 8], [14, 19, 16, 8], [20, 15, 5, 8]]
SPARED = [[[21, 22, 16, 8], [23, 15, 24, 8]], [[25, 5, 6, 8], [25, 26, 27, 8], [28, 5, 6, 8]]]
SAFETY = ("dangerous", "fraud", "privacy", "misinformation", "copyright", "offensive")


def problem(model, **changes):
    spared = tuple(sample("protected", ids) for ids in SPARED)
    given = {"targets": (sample("target", TARGET), sample("target", OTHER)), "protected": spared}
    return problem_of(model, TARGET, BASELINE, [-2, -1], **{**given, **changes})


def test_without_a_span_nothing_along_it_is_left():
    rows, others = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left = without_span(rows, others)
    assert (left @ others.T).abs().max() < 1e-12
    torch.testing.assert_close(without_span(left, others), left)
    torch.testing.assert_close(without_span(rows, others, 0.25), rows - 0.25 * (rows - left))
    assert not without_span(others, others).any()
    torch.testing.assert_close(without_span(rows, torch.zeros(2, 8)), rows)


def test_cosines():
    assert cosine(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(2**-0.5)
    assert cosine(torch.zeros(2), torch.ones(2)) == 0.0


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_one_protected_set_is_the_papers_formula(small_model, strength):
    given = problem(small_model("llama"))
    given = problem(given.model, protected=given.protected[:1])
    found = finder_named("false-refusal")(given, {"strength": strength})
    assert [(c.position, c.layer) for c in found] == [(p, layer) for p in (-2, -1) for layer in range(4)]
    x = {name: given.activations(ids).double() for name, ids in (("t", TARGET + OTHER), ("b", BASELINE))}
    protected = given.activations(SPARED[0]).double()
    for candidate in found:
        p, layer = (-2, -1).index(candidate.position), candidate.layer
        w = x["t"][:, p, layer].mean(0) - x["b"][:, p, layer].mean(0)
        v = protected[:, p, layer].mean(0) - x["b"][:, p, layer].mean(0)
        if layer == 0 and candidate.position == -1:
            assert not candidate.rows.any()
            continue
        expected = w - strength * v * float(v @ w) / float(v @ v)
        torch.testing.assert_close(candidate.vector, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(candidate.rows, expected[None], atol=1e-5, rtol=1e-5)
        (facts,) = candidate.facts["protected"]
        assert facts["cosines"]["protected"] == pytest.approx(float(v @ w / v.norm() / w.norm()), abs=1e-5)
        assert facts["left"] == pytest.approx(float(expected.norm() / w.norm()), rel=1e-4)


def test_several_protected_sets_and_a_direction_for_each_target(small_model):
    given = problem(small_model("llama"))
    candidate = finder_named("false-refusal")(given, {"each": True})[5]
    p, layer = 1, 1
    base = given.activations(BASELINE)[:, p, layer].double().mean(0)
    spared = [given.activations(ids)[:, p, layer].double().mean(0) - base for ids in SPARED]
    assert candidate.rows.shape == (2, 32)
    for ids, row in zip((TARGET, OTHER), candidate.rows, strict=True):
        w = given.activations(ids)[:, p, layer].double().mean(0) - base
        solved = torch.linalg.lstsq(torch.stack(spared, dim=1), w[:, None]).solution[:, 0]
        torch.testing.assert_close(row, w - torch.stack(spared, dim=1) @ solved, atol=1e-5, rtol=1e-4)
    assert max(abs(cosine(candidate.vector, v)) for v in spared) < 1e-5
    assert len(candidate.facts["protected"]) == 2


def test_the_mean_of_the_protected_sets_can_stand_for_them(small_model):
    given = problem(small_model("llama"))
    found = finder_named("false-refusal")(given, {"protected": "mean"})
    pooled = problem(given.model, protected=(sample("protected", SPARED[0] + SPARED[1]),))
    for one, other in zip(found, finder_named("false-refusal")(pooled, {}), strict=True):
        torch.testing.assert_close(one.rows, other.rows)


def test_it_asks_for_what_to_protect(small_model):
    with pytest.raises(UsageError, match="name at least one set to protect"):
        finder_named("false-refusal")(problem(small_model("llama"), protected=()), {})


def test_on_the_organism_over_refusal_falls_and_refusal_stays(organism):
    found = find_directions(
        organism,
        organism_set("over-refused"),
        organism_set("answered"),
        protect=[organism_set(name) for name in SAFETY],
        method="false-refusal",
        options={"protected": "mean"},
        positions="all",
    )
    record = found.metadata
    assert record["rule"]["min_induce"] is None
    assert 0 < next(s for s in record["scores"] if s["layer"] == record["layer"])["protected_kl"] <= 0.1
    assert share_refused(organism, "over-refused", None) > 0.9
    assert share_refused(organism, "over-refused", found) < 0.2
    before, after = (torch.tensor([share_refused(organism, name, some) for name in SAFETY]) for some in (None, found))
    assert after.mean() >= 0.9 * before.mean()
    assert after.min() > 0.75
    assert share_refused(organism, "answered", found) < 0.05
