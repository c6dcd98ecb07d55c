"""The candidate chosen is the best within all bounds, which are those of the published code."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import SelectionRule, failures, least_bad, select
from weight_edit.errors import UsageError

NAN = math.nan
PAPER = SelectionRule()


def row(position, layer, bypass, induce, kl, norm=1.0):
    return CandidateScore(position=position, layer=layer, bypass=bypass, induce=induce, kl=kl, norm=norm)


# The shape of the published tables: 20 layers, so layers from 16 on are out.
TABLE = [
    row(-5, 0, NAN, NAN, NAN, norm=0.0),
    row(-5, 9, 1.7, 2.0, 0.02),
    row(-5, 10, -3.1, 4.5, 0.06),
    row(-5, 16, -9.8, 7.0, 0.05),
    row(-1, 8, -8.0, 3.0, 0.31),
    row(-1, 10, -7.5, -0.2, 0.04),
    row(-1, 11, -6.2, 5.1, 0.08),
    row(-1, 12, -5.9, 5.0, 0.03),
    row(-1, 15, NAN, 1.0, 0.01),
    row(-1, 19, -8.8, -1.0, 0.9),
]


def test_protected_prompts_have_a_bound_of_their_own():
    table = [
        replace(row(-1, 3, -9.0, 1.0, 0.01), protected_kl=0.4),
        replace(row(-1, 4, -2.0, 1.0, 0.05), protected_kl=0.1),
    ]
    found = select(table, PAPER, 20)
    assert found.chosen == table[1]
    assert found.rejections == {(-1, 3): "KL of protected prompts 0.4 above 0.1"}
    assert failures(table[0], PAPER, 20)[0].excess == pytest.approx(3.0)
    assert select(table, SelectionRule(max_protected_kl=None), 20).chosen == table[0]
    assert select([replace(table[1], protected_kl=NAN)], PAPER, 20).rejections == {(-1, 4): "a score is not finite"}
    with pytest.raises(UsageError, match="max_protected_kl is 0"):
        SelectionRule(max_protected_kl=0)


def test_the_lowest_bypass_within_all_bounds_is_chosen():
    found = select(TABLE, PAPER, 20)
    assert found.chosen == row(-1, 11, -6.2, 5.1, 0.08)
    assert found.rejections == {
        (-5, 0): "zero norm",
        (-5, 16): "layer 16 above 15",
        (-1, 8): "KL 0.31 above 0.1",
        (-1, 10): "induce score -0.2 below 0",
        (-1, 15): "a score is not finite",
        (-1, 19): "layer 19 above 15; KL 0.9 above 0.1; induce score -1 below 0",
    }
    assert found.counts == {
        "zero norm": 1,
        "layer above 15": 2,
        "KL above 0.1": 2,
        "induce score below 0": 2,
        "a score is not finite": 1,
    }


def test_bounds_themselves_are_allowed_as_in_the_published_code():
    assert select([row(-1, 15, 0.0, 0.0, 0.1)], PAPER, 20).chosen is not None
    assert select([row(-1, 16, 0.0, 0.0, 0.1)], PAPER, 20).chosen is None


@pytest.mark.parametrize(("n_layers", "allowed"), [(4, 3), (5, 4), (18, 14), (28, 22), (32, 25), (35, 28), (80, 64)])
def test_layers_are_rounded_down_as_in_the_published_code(n_layers, allowed):
    assert PAPER.layers(n_layers) == allowed == int(n_layers * (1.0 - 0.2))


def test_bounds_can_be_lifted():
    free = SelectionRule(max_kl=None, min_induce=None, max_layer_fraction=None)
    assert select(TABLE, free, 20).chosen == row(-5, 16, -9.8, 7.0, 0.05)
    with pytest.raises(UsageError, match="max_kl"):
        SelectionRule(max_kl=0.0)
    with pytest.raises(UsageError, match="max_layer_fraction"):
        SelectionRule(max_layer_fraction=1.5)


def test_the_least_bad_misses_by_least_and_then_bypasses_best():
    table = [row(-1, 1, -9.0, 1.0, 0.2), row(-1, 2, -1.0, 1.0, 0.11), row(-2, 2, -2.0, 1.0, 0.11)]
    assert select(table, PAPER, 4).chosen is None
    assert least_bad(table, PAPER, 4) == table[2]
    assert least_bad([row(-1, 0, NAN, NAN, NAN, norm=0.0)], PAPER, 4) is None
    # Half a nat of induce score against twice the KL bound.
    assert least_bad([row(-1, 1, 0.0, -0.5, 0.1), row(-1, 2, -5.0, 0.0, 0.2)], PAPER, 4).layer == 1


def test_nothing_to_choose_from():
    assert select([], PAPER, 4).chosen is None
    assert least_bad([], PAPER, 4) is None


values = st.one_of(st.floats(-20, 20), st.just(NAN))
tables = st.dictionaries(
    st.tuples(st.integers(-5, -1), st.integers(0, 9)),
    st.tuples(values, values, values, st.sampled_from([0.0, 1.0])),
).map(lambda d: [row(*place, *scores) for place, scores in d.items()])


@given(tables)
def test_selection_properties(table):
    found = select(table, PAPER, 10)
    passing = [s for s in table if not failures(s, PAPER, 10)]
    assert {(s.position, s.layer) for s in table} - set(found.rejections) == {(s.position, s.layer) for s in passing}
    assert sum(found.counts.values()) >= len(found.rejections)
    if found.chosen is None:
        assert not passing
        return
    best = found.chosen
    assert best.norm > 0
    assert best.layer < 8
    assert best.kl <= 0.1
    assert best.induce >= 0
    assert all(best.bypass <= s.bypass for s in passing)
    # A candidate that passes costs nothing, so the least bad one is no worse.
    assert least_bad(table, PAPER, 10).bypass == best.bypass


@given(tables)
def test_wider_bounds_never_choose_a_worse_candidate(table):
    strict, loose = (
        select(table, PAPER, 10).chosen,
        select(table, SelectionRule(max_kl=5.0, min_induce=-5.0), 10).chosen,
    )
    if strict is not None:
        assert loose.bypass <= strict.bypass


def test_a_bound_that_is_no_number_is_refused_and_never_passes():
    with pytest.raises(UsageError, match="min_induce"):
        SelectionRule(min_induce=math.nan)
    with pytest.raises(UsageError, match="max_kl"):
        SelectionRule(max_kl=math.nan)
