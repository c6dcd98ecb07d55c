"""A race drops who is beaten and nobody else, and says what it cost."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import t as student

from tests.helpers.search_samples import organism, organism_point, organism_texts
from weight_edit.search.front import FrontPoint, front
from weight_edit.search.race import Race, race, student_quantile
from weight_edit.search.score import Score, Scorer
from weight_edit.search.texts import Choice, Kept, Texts

REFUSED, ORDINARY, OVER = 40, 24, 10


@dataclass(frozen=True)
class Named:
    """What a race needs of a point."""

    digest: str


def texts(over: int = OVER) -> Texts:
    choice = Choice(prompt=(1, 2, 3), text="", refusal=(4,) * 20, answer=(5, 6))
    return Texts(
        refused=(choice,) * REFUSED,
        ordinary=(Kept(prompt=(1, 2), text="", answer=(3,) * 4),) * ORDINARY,
        over_refused=(choice,) * over,
    )


@dataclass
class Known:
    """A scorer that knows the scores, and notes what it was asked."""

    known: dict[str, Score]
    texts: Texts = field(default_factory=texts)
    tokens: int = 12
    asked: list[tuple[list[str], list[int], list[int], list[int]]] = field(default_factory=list)

    def scores(self, points, *, refused, ordinary, over_refused, description=None):
        self.asked.append(([each.digest for each in points], refused, ordinary, over_refused))
        found = [self.known[each.digest] for each in points]
        return [
            Score(ratios=each.ratios[refused], kl=each.kl[ordinary], over_ratios=each.over_ratios[over_refused])
            for each in found
        ]


def made(seed: int, refusal: float, damage: float, over: float = 0.0, spread: float = 1.0) -> Score:
    """A score with log ratios around `refusal` and divergences around `damage`."""
    generator = np.random.default_rng(seed)
    return Score(
        ratios=refusal + spread * generator.normal(size=REFUSED),
        kl=damage * np.exp(0.2 * spread * generator.normal(size=ORDINARY)),
        over_ratios=over + spread * generator.normal(size=OVER),
    )


def run(known: dict[str, Score], among=None, beat=None, **options) -> tuple[Race, Known]:
    scorer = Known(known)
    return race(scorer, [Named(each) for each in (known if among is None else among)], beat, **options), scorer


def place(digest: str, score: Score) -> FrontPoint:
    return FrontPoint(digest=digest, refusal=score.refusal, damage=score.damage, over_refusal=score.over_refusal)


def test_who_is_worse_by_every_objective_is_dropped_at_once():
    found, scorer = run({"good": made(0, -3, 0.01, -3), "bad": made(1, 3, 0.5, 3), "cheap": made(2, 3, 1e-4, 3)})
    assert set(found.scores) == {"good", "cheap"}
    drop = found.dropped["bad"]
    assert (drop.rung, drop.by, drop.exact) == (1, "good", False)
    assert [len(each[0]) for each in scorer.asked] == [3, 2, 2, 2]
    assert [(rung.candidates, rung.paired, rung.exact, rung.on) for rung in found.rungs] == [
        (3, 1, 0, 2),
        (2, 0, 0, 2),
        (2, 0, 0, 2),
        (2, 0, 0, 2),
    ]


def test_who_ends_has_the_score_of_all_prompts_in_their_order():
    known = {"a": made(0, -1, 0.01), "b": made(1, 1, 0.001)}
    found, _ = run(known)
    for digest, score in known.items():
        assert np.array_equal(found.scores[digest].ratios, score.ratios)
        assert np.array_equal(found.scores[digest].kl, score.kl)
        assert np.array_equal(found.scores[digest].over_ratios, score.over_ratios)


def test_every_prompt_is_asked_once_in_growing_rungs():
    found, scorer = run({"a": made(0, -1, 0.01), "b": made(1, 1, 0.001)}, first=4)
    for at, count in ((1, REFUSED), (2, ORDINARY), (3, OVER)):
        assert sorted(row for each in scorer.asked for row in each[at]) == list(range(count))
    assert [rung.asked["refused"] for rung in found.rungs] == [4, 8, 16, 32, 40]
    assert [rung.asked["over_refused"] for rung in found.rungs] == [4, 8, 10, 10, 10]


def test_the_cost_is_counted():
    found, _ = run({"a": made(0, -1, 0.01), "b": made(1, 1, 0.001)})
    assert found.rungs[0].prompts == 2 * 3 * 8
    # A refused prompt of 3 tokens stands before 12 of 20 tokens and before 2; an ordinary one of 2 before 4.
    assert found.rungs[0].tokens == 2 * (16 * (2 * 3 + 12 + 2) + 8 * (2 + 4))
    assert sum(rung.prompts for rung in found.rungs) == 2 * (REFUSED + ORDINARY + OVER)


def test_the_front_is_to_be_beaten_and_not_asked():
    front_score = made(0, -3, 0.01, -3)
    known = {"bad": made(1, 3, 0.5, 3), "cheap": made(2, 3, 1e-4, 3), "front": front_score}
    found, scorer = run(known, among=("bad", "cheap", "front"), beat={"front": front_score})
    assert found.dropped["bad"].by == "front"
    assert set(found.scores) == {"cheap", "front"}
    assert all("front" not in each[0] for each in scorer.asked)


def test_sums_that_cannot_fall_drop_exactly():
    """Half of all prompts are refused for sure, and the rival refuses no more; both refuse the same ones at first."""
    halves = Score(
        ratios=np.tile([40.0, -40.0], REFUSED // 2),
        kl=np.full(ORDINARY, 5.0),
        over_ratios=np.tile([40.0, -40.0], OVER // 2),
    )
    less = np.concatenate([halves.ratios[:16], np.full(REFUSED - 16, -40.0)])
    rival = Score(ratios=less, kl=np.full(ORDINARY, 0.5), over_ratios=np.full(OVER, -40.0))
    found, _ = run({"candidate": halves}, beat={"rival": rival})
    drop = found.dropped["candidate"]
    assert (drop.by, drop.exact) == ("rival", True)
    sums = (drop.score.ratios > 0).sum(), drop.score.kl.sum(), (drop.score.over_ratios > 0).sum()
    assert all(
        at <= total / count + 1e-9
        for at, total, count in zip(rival.objectives, sums, (REFUSED, ORDINARY, OVER), strict=True)
    )


def test_a_candidate_that_is_the_best_by_one_objective_ends():
    known = {str(seed): made(seed, -seed, 1e-4 * 2**seed, -seed, spread=0.5) for seed in range(6)}
    found, _ = run(known)
    assert set(found.scores) == set(known)


def test_front_points_are_seldom_lost():
    lost = all_of_them = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        figures = generator.normal(0, 3, 20), 10 ** generator.uniform(-4, -1, 20), generator.normal(0, 3, 20)
        known = {
            str(number): made(1000 * seed + number, *each) for number, each in enumerate(zip(*figures, strict=True))
        }
        found, _ = run(known)
        true = front([place(digest, score) for digest, score in known.items()])
        lost += sum(each.digest not in found.scores for each in true)
        all_of_them += len(true)
        assert len(found.scores) < len(known)
    assert all_of_them > 200
    assert lost / all_of_them < 0.02


def test_who_is_dropped_exactly_is_behind_the_front_with_all_prompts_asked():
    generator, count = np.random.default_rng(5), 0
    for _ in range(200):
        known = {
            str(number): made(int(generator.integers(1 << 30)), generator.normal(0, 4), 10 ** generator.uniform(-4, -1))
            for number in range(8)
        }
        beat = {digest: known[digest] for digest in ("0", "1", "2")}
        found, _ = run(known, among=[digest for digest in known if digest not in beat], beat=beat)
        for digest, drop in found.dropped.items():
            if drop.exact:
                count += 1
                whole, rival = known[digest], known[drop.by]
                assert all(a <= b + 1e-12 for a, b in zip(rival.objectives, whole.objectives, strict=True))
    assert count > 20


def test_a_race_is_written_and_read_as_it_is():
    found, _ = run({"good": made(0, -3, 0.01, -3), "bad": made(1, 3, 0.5, 3), "cheap": made(2, 3, 1e-4, 3)})
    entry = json.loads(json.dumps(found.to_dict()))
    assert Race.from_dict(entry).to_dict() == entry
    assert entry["rungs"][0]["on"] == 2


def test_a_seed_sets_the_order_and_nothing_else_does():
    known = {"a": made(0, -1, 0.01), "b": made(1, 1, 0.001)}
    orders = [run(known, seed=seed)[1].asked[0][1] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_without_harmless_prompts_there_are_two_objectives():
    known = {
        digest: Score(ratios=score.ratios, kl=score.kl, over_ratios=np.zeros(0))
        for digest, score in {"good": made(0, -3, 0.01), "bad": made(1, 3, 0.5)}.items()
    }
    scorer = Known(known, texts(over=0))
    found = race(scorer, [Named("good"), Named("bad")])
    assert found.dropped["bad"].by == "good"
    assert found.scores["good"].over_refusal is None


def test_settings_without_an_interval_are_refused():
    known = {"a": made(0, -1, 0.01)}
    for options in ({"first": 2}, {"growth": 1}):
        with pytest.raises(ValueError, match="a first rung of"):
            run(known, **options)
    short = Score(ratios=np.zeros(3), kl=np.zeros(3), over_ratios=np.zeros(3))
    with pytest.raises(ValueError, match="not of the prompts that candidates are asked"):
        run(known, beat={"front": short})
    assert race(Known({}), []).rungs == ()


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 31, 64, 301])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.999])
def test_the_quantile_is_that_of_student(freedom, probability):
    assert student_quantile(probability, freedom) == pytest.approx(student.ppf(probability, freedom), rel=1e-9)


def test_a_race_on_the_embedded_model_keeps_what_is_best_and_gives_whole_scores():
    scorer = Scorer(organism(), organism_texts().training)
    points = [organism_point(strength) for strength in (0.0, 0.5, 1.0, 1.9)]
    found = race(scorer, points, first=4)
    for each, score in zip(points, scorer.scores(points), strict=True):
        if each.digest in found.scores:
            assert found.scores[each.digest].refusal == pytest.approx(score.refusal, abs=1e-5)
            assert found.scores[each.digest].damage == pytest.approx(score.damage, abs=1e-5)
    assert points[0].digest in found.scores
    assert points[2].digest in found.scores
