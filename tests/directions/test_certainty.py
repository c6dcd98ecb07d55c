"""How sure a choice is: what cannot be told apart is named, measured on more prompts, and decided on all of them."""

import json

import numpy as np
import pytest

from weight_edit.directions import find
from weight_edit.directions.certainty import certainty, difference, interval, intervals, straddled
from weight_edit.directions.find import find_directions
from weight_edit.directions.find_folder import MORE
from weight_edit.directions.scores import CandidateScore, with_more
from weight_edit.directions.selection import SelectionRule, select
from weight_edit.evaluation.means import mean_comparison, mean_difference

RULE = SelectionRule(min_induce=None, max_layer_fraction=None)


def score(layer: int, bypass, kl=(0.01,) * 8, **changes) -> CandidateScore:
    values = {"bypass": tuple(map(float, bypass)), "kl": tuple(map(float, kl))}
    means = {name: float(np.mean(some)) for name, some in values.items()}
    return CandidateScore(position=-1, layer=layer, induce=None, norm=1.0, values=values, **{**means, **changes})


def around(mean: float, seed: int, count: int = 16, spread: float = 0.1) -> list[float]:
    drawn = np.random.default_rng(seed).normal(size=count)
    return list(mean + spread * (drawn - drawn.mean()))


def test_intervals_are_those_of_the_mean_over_prompts_and_never_below_no_divergence():
    kl = [0.0] * 15 + [0.3]
    one = score(0, around(-2, 0), kl)
    expected = mean_comparison(one.values["bypass"])
    assert intervals(one)["bypass"] == [expected.low, expected.high]
    assert mean_comparison(kl).low < 0
    assert intervals(one)["kl"] == [0.0, mean_comparison(kl).high]
    assert interval(score(0, [1.0, 2.0]), "bypass") is None
    assert interval(score(0, [1.0, 2.0, float("inf")]), "bypass") is None


def test_what_differs_by_chance_is_tied_with_the_best_and_what_differs_is_not():
    base = around(-3, 1, spread=2.0)
    wobble = around(0.0, 2, spread=0.5)
    table = [
        score(0, base),
        score(1, [b + 0.02 + w for b, w in zip(base, wobble, strict=True)]),
        score(2, [b + 0.5 + w / 10 for b, w in zip(base, wobble, strict=True)]),
    ]
    sure = certainty(table, RULE, 3)
    assert (sure.best, sure.compared) == (0, 2)
    assert [tie.number for tie in sure.ties] == [1]
    pair = mean_difference(table[0].values["bypass"], table[1].values["bypass"])
    assert sure.ties[0].difference.value == pair.value
    # Over each prompt the third differs by much less than prompts differ from one another: a pair tells it.
    assert interval(table[2], "bypass").low < table[0].bypass
    assert sure.contenders == (0, 1)
    assert certainty([table[0], table[2]], RULE, 3).contenders == ()


def test_many_comparisons_are_corrected_for_their_number():
    base = around(-3, 1)
    near = [b + 0.05 + w for b, w in zip(base, around(0.0, 2, spread=0.09), strict=True)]
    assert difference(score(0, base), score(1, near)).told
    alone, among = (certainty([score(n, near if n else base) for n in range(count)], RULE, 4) for count in (2, 4))
    assert [tie.number for tie in alone.ties] == []
    assert [tie.number for tie in among.ties] == [1, 2, 3]


def test_a_bound_that_the_interval_holds_is_open_where_the_candidate_could_be_chosen():
    open_kl, sure_kl = around(0.12, 3, spread=0.1), around(0.3, 4, spread=0.01)
    table = [
        score(0, around(-3, 1)),
        score(1, around(-4, 2), open_kl),
        score(2, around(-5, 3), sure_kl),
        score(3, around(1, 3), open_kl),
        score(4, around(-4, 2), open_kl, protected_kl=3.0),
    ]
    assert straddled(table[1], RULE) == ["kl"]
    assert straddled(table[2], RULE) == []
    sure = certainty(table, RULE, 5)
    assert sure.best == 0
    assert sure.open_bounds == (1,)
    assert sure.contenders == (0, 1)


def test_where_none_keeps_a_bound_those_that_might_are_contenders():
    table = [score(0, around(-3, 1), around(0.12, 3)), score(1, around(-4, 2), around(0.5, 3, spread=0.01))]
    sure = certainty(table, RULE, 2)
    assert (sure.best, sure.contenders) == (None, (0,))


def test_a_choice_by_similarities_has_no_scores_for_each_prompt():
    rule = SelectionRule(select="cosmic", min_induce=None, max_layer_fraction=None)
    table = [score(0, around(-3, 1), cosmic=1.0), score(1, around(-3, 1), cosmic=0.9)]
    sure = certainty(table, rule, 2)
    assert (sure.best, sure.compared, sure.ties) == (0, None, ())


def test_of_those_measured_on_more_prompts_one_is_chosen_where_any_keeps_the_bounds():
    table = [score(0, around(-3, 1)), score(1, around(-4, 2)), score(2, around(-2, 3))]
    assert select(table, RULE, 3).chosen is table[1]
    assert select(table, RULE, 3, among=[0, 2]).chosen is table[0]
    bad = [score(0, around(-3, 1), [9.0] * 8), *table[1:]]
    assert select(bad, RULE, 3, among=[0]).chosen is table[1]


def test_more_values_stand_behind_those_there_are():
    before = score(0, [1, 2, 3], [0.1, 0.2, 0.3])
    after = with_more(before, {"bypass": (6.0,), "kl": ()})
    assert after.values == {"bypass": (1.0, 2.0, 3.0, 6.0), "kl": (0.1, 0.2, 0.3)}
    assert (after.bypass, after.kl) == (3.0, pytest.approx(0.2))
    assert "values" not in after.to_dict()


@pytest.fixture
def searched(behaviour):
    """`searched(**options)`: a search with few validation prompts, so that little can be told."""
    found = behaviour("llama")

    def search(**options):
        given = {"refusal_tokens": found.tokens, "rule": SelectionRule(max_kl=None, min_induce=None), **options}
        return find_directions(found.model, found.target, found.baseline, n_train=24, n_validation=8, **given)

    return search


def test_candidates_that_cannot_be_told_apart_are_measured_on_more_prompts(searched, tmp_path, monkeypatch):
    few = searched(n_more=0).metadata
    assert few["certainty"]["ties"]
    assert few["certainty"]["measured_on_more"] == []
    assert any("cannot be told from the chosen one" in warning for warning in few["warnings"])
    folder = tmp_path / "d.find"
    more = searched(n_more=24, scores=folder).metadata
    again = [(row["layer"], row["position"]) for row in more["scores"] if row["prompts"] > 8]
    assert (more["layer"], more["position"]) in again
    assert len(again) == len(more["certainty"]["measured_on_more"]) > 1
    rows = [json.loads(line) for line in (folder / MORE).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(again)
    assert all(0 < len(row["values"]["kl"]) <= 24 for row in rows)
    assert searched(n_more=24).metadata == more
    monkeypatch.setattr(find, "measured", None)
    assert searched(n_more=24, scores=folder, resume=True).metadata == more
    assert searched(n_more=0, scores=folder, resume=True).metadata["layer"] == few["layer"]


def test_an_interrupted_round_is_gone_on_with(searched, tmp_path, monkeypatch):
    folder, fresh = tmp_path / "d.find", searched(n_more=24)
    note = find.SearchFolder.note_more

    def interrupt(self, n_more, number, values):
        note(self, n_more, number, values)
        raise KeyboardInterrupt

    monkeypatch.setattr(find.SearchFolder, "note_more", interrupt)
    with pytest.raises(KeyboardInterrupt):
        searched(n_more=24, scores=folder)
    monkeypatch.setattr(find.SearchFolder, "note_more", note)
    assert searched(n_more=24, scores=folder, resume=True).metadata == fresh.metadata


def test_further_prompts_are_filtered_as_the_others(searched, tmp_path):
    searched(n_more=24, scores=tmp_path / "d.find")
    said = json.loads((tmp_path / "d.find/search.json").read_text(encoding="utf-8"))["metering"]
    assert [len(marks) for marks in said["more"]] == [24, 24]
    rows = [json.loads(line) for line in (tmp_path / "d.find" / MORE).read_text(encoding="utf-8").splitlines()]
    assert {len(row["values"]["bypass"]) for row in rows} == {sum(said["more"][0])}
    assert {len(row["values"]["kl"]) for row in rows} == {sum(said["more"][1])}
