"""Which candidates are looked at closer: those that other prompts speak for, and a spread of the rest."""

import numpy as np

from weight_edit.search.candidate import Candidate, best_first, contenders, finalists, scores_of, sketches_of, to_judge
from weight_edit.search.front import FrontPoint
from weight_edit.search.point import Point
from weight_edit.search.score import Score
from weight_edit.search.strengths import Strengths


def score(refusal, damage):
    return Score(
        ratios=np.log([refusal / (1 - refusal)]), kl=np.array([damage]), over_ratios=np.array([], dtype=np.float64)
    )


def candidate(number, refusal, damage, *, raced=True):
    point = Point(rows=np.eye(1, 4, dtype=np.float32), strengths=Strengths.flat(2, number / 100))
    found = score(refusal, damage)
    return Candidate(point=point, score=found if raced else None, sketch=found, raced=raced)


LAYERS = [
    # The front by training prompts, then one behind it, then one behind that.
    [candidate(1, 0.9, 0.001), candidate(2, 0.5, 0.01), candidate(3, 0.1, 0.1)],
    [candidate(4, 0.92, 0.002), candidate(5, 0.55, 0.02), candidate(6, 0.2, 0.2)],
    [candidate(7, 0.95, 0.3), candidate(8, 0.6, 0.4)],
]
EVERY = [each for layer in LAYERS[::-1] for each in layer]


def digests(some):
    return [each.point.digest for each in some]


def test_contenders_come_layer_by_layer():
    assert digests(contenders(EVERY, 3)) == digests(LAYERS[0])
    assert digests(contenders(EVERY, 6)) == digests([*LAYERS[0], *LAYERS[1]])
    # Of a layer that is too long, the points that show most of it.
    some = digests(contenders(EVERY, 5))
    assert some[:3] == digests(LAYERS[0])
    assert set(some[3:]) < set(digests(LAYERS[1]))
    assert len(contenders(EVERY, 100)) == len(EVERY)


def test_what_has_no_score_contends_for_nothing():
    lost = candidate(9, 0.01, 0.0001, raced=False)
    assert digests(contenders([lost, *LAYERS[0]], 9)) == digests(LAYERS[0])


def test_equal_scores_are_contenders_both():
    twins = [candidate(1, 0.5, 0.1), candidate(2, 0.5, 0.1)]
    assert sorted(digests(contenders(twins, 5))) == sorted(digests(twins))


def test_the_front_by_other_prompts_is_judged():
    """Of two fits to the training prompts, one is worse than a plain candidate on others."""
    plain, lucky, sound, other = (
        candidate(1, 0.5, 0.1),
        candidate(2, 0.01, 0.01),
        candidate(3, 0.02, 0.02),
        candidate(4, 0.6, 0.3),
    )
    held = {lucky.point.digest: score(0.3, 0.2), sound.point.digest: score(0.05, 0.02)}
    chosen = digests(to_judge([plain, lucky, sound, other], held, 4))
    assert chosen[:2] == digests([plain, sound])
    assert set(chosen[2:]) == set(digests([lucky, other]))


def test_others_are_spread_over_all_scores():
    held = {each.point.digest: each.score for each in LAYERS[0]}
    chosen = to_judge(EVERY, held, 6)
    refusals = sorted(each.cheapest.refusal for each in chosen)
    assert len(chosen) == len(set(digests(chosen))) == 6
    assert refusals[0] < 0.25
    assert refusals[-1] > 0.9


def test_what_is_no_number_is_no_candidate():
    """An edit may break a model; one of many is no reason to end a search."""
    broken = [candidate(5, 0.5, np.nan), candidate(6, 0.5, np.inf)]
    every = [*broken, *LAYERS[0]]
    assert set(scores_of(every)) == set(sketches_of(every)) == set(digests(LAYERS[0]))
    assert set(digests(contenders(every, 9))) == set(digests(LAYERS[0]))
    held = {each.point.digest: each.score for each in every}
    chosen = to_judge([LAYERS[0][0], *every], held, 5)
    assert set(digests(chosen)) == set(digests(LAYERS[0]))


def test_starts_are_ordered_by_the_loss_of_a_descent():
    """Over-refused prompts have a term of their own, however few they are."""
    one = Score(ratios=np.full(64, -6.0), kl=np.array([0.1]), over_ratios=np.full(8, 3.0))
    other = Score(ratios=np.full(64, 0.0), kl=np.array([0.1]), over_ratios=np.full(8, -6.0))
    assert best_first({"one": one, "other": other}, 0.1) == ["other", "one"]
    without = {
        name: Score(ratios=each.ratios, kl=each.kl, over_ratios=np.array([]))
        for name, each in (("a", one), ("b", other))
    }
    assert best_first(without, 0.1) == ["a", "b"]


def test_finalists_are_those_that_refuse_least_and_some_that_show_the_rest():
    best = [
        FrontPoint(digest=f"{number:012d}", refusal=refusal, damage=damage)
        for number, (refusal, damage) in enumerate(
            [(1.0, 1e-4), (0.9, 2e-4), (0.5, 4e-4), (0.1, 1e-3), (0.05, 2e-3), (0.02, 5e-3), (0.0, 2e-2)]
        )
    ]
    chosen = finalists(best, 5)
    assert chosen[:3] == [f"{number:012d}" for number in (6, 5, 4)]
    assert set(chosen[3:]) <= {f"{number:012d}" for number in (1, 2, 3)}
    assert len(chosen) == 5
    assert finalists(best[:1], 5) == ["000000000000"]
