"""Descents: they fall, keep their bounds, follow the price, take up refusals, and go on to the bit."""

import itertools
import json

import numpy as np
import pytest
import torch

from tests.helpers.random_texts import texts
from tests.helpers.small_families import small
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.search.descent import KEPT_EVERY, PricedPoint, descend
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.point import Point
from weight_edit.search.score import Scorer
from weight_edit.search.strengths import Strengths
from weight_edit.search.texts import Choice, Texts


def start_of(model, count: int = 1, strength: float = 1.0, **others) -> Point:
    drawn = torch.randn(count, model.anatomy.d_model, generator=torch.Generator().manual_seed(1))
    rows = orthonormal_rows(drawn).astype(np.float32)
    return Point(rows=rows, strengths=Strengths.flat(model.anatomy.n_layers, strength), **others)


def options(**others) -> DescentOptions:
    given = {"prices": (0.1,), "steps": 12, "directions": 2, "refresh": 4, "batch": 2, "rate": 0.2, **others}
    return DescentOptions(**given)


class Refusing:
    """Generates other refusals every time that it is asked, and always the same ones for the same point."""

    def __init__(self, given: Texts) -> None:
        self.given, self.asked = given, 0

    def __call__(self, point: Point) -> list[Choice]:
        self.asked += 1
        drawn = np.random.default_rng(int(point.digest, 16)).integers(5, 44, size=(2, 5)).tolist()
        return [
            Choice(prompt=each.prompt, text=each.text, refusal=tuple(refusal), answer=each.answer)
            for each, refusal in zip(self.given.refused, drawn, strict=False)
        ]


def loss_of(score) -> float:
    """The loss without damage and answers."""
    return sum(float(np.logaddexp(0, ratios).mean()) for ratios in (score.ratios, score.over_ratios))


@pytest.mark.parametrize("directions", [0, 1, 3])
def test_refusal_falls_within_the_bounds(directions):
    model, given = small("llama"), texts()
    scorer, start = Scorer(model, given, tokens=5), start_of(model)
    # Batches of all texts, and of refusals alone.
    chosen = options(directions=directions, steps=25, prices=(0.0,), answers=0.0, batch=16, largest=1.2)
    (found,) = descend(scorer, start, chosen, description=None)
    (before,) = scorer.scores([start])
    assert loss_of(found.score) < 0.8 * loss_of(before)
    rows = found.point.rows
    assert rows.shape == (max(1, directions), model.anatomy.d_model)
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-6)
    strengths = found.point.strengths.vector
    assert 0 <= strengths.min() < strengths.max() <= 1.2
    assert np.ptp(strengths) > 0.01
    if directions:
        assert abs(float(rows[0] @ start.rows[0])) < 0.999
    else:
        np.testing.assert_array_equal(rows, start.rows)
    (again,) = scorer.scores([found.point])
    assert again.objectives == found.score.objectives


def test_a_higher_price_means_less_damage():
    model, given = small("llama"), texts()
    chosen = options(prices=(0.01, 3.0, 300.0), steps=20, batch=16)
    found = descend(Scorer(model, given, tokens=5), start_of(model), chosen, description=None)
    assert [each.price for each in found] == [0.01, 3.0, 300.0]
    damages = [each.score.damage for each in found]
    assert damages[0] > damages[1] > damages[2]
    assert loss_of(found[0].score) < loss_of(found[2].score)


def test_the_answers_weight_makes_answers_likelier():
    model, given = small("llama"), texts()
    scorer = Scorer(model, given, tokens=5)
    # Refusals that are the answers: their ratio is 0 whatever the edit.
    same = tuple(Choice(prompt=c.prompt, text="", refusal=c.answer, answer=c.answer) for c in given.refused)
    alike = Scorer(model, Texts(refused=same, ordinary=given.ordinary), tokens=5)
    (found,) = descend(alike, start_of(model), options(steps=25, batch=16, answers=1.0), description=None)
    before, after = scorer.scores([start_of(model), found.point])
    assert after.ratios.mean() < before.ratios.mean() - 1


@pytest.mark.parametrize("interrupted", [1, 4, 5, 7, 9, 10, 15])
def test_an_interrupted_descent_goes_on_to_the_bit(interrupted):
    model, given = small("llama"), texts()
    scorer, chosen = Scorer(model, given, tokens=5), options(prices=(0.1, 1.0), steps=8)
    whole = descend(scorer, start_of(model), chosen, refusals=Refusing(given), description=None)
    assert whole[-1].point.facts["joined"] > 0

    kept: list[str] = []
    steps = itertools.count(1)

    class Killed(Exception):
        pass

    class Failing(Scorer):
        def gradient(self, *args, **kwargs):
            if next(steps) > interrupted:
                raise Killed
            return super().gradient(*args, **kwargs)

    with pytest.raises(Killed):
        descend(
            Failing(model, given, tokens=5),
            start_of(model),
            chosen,
            refusals=Refusing(given),
            keep=lambda state: kept.append(json.dumps(state)),
            description=None,
        )
    assert len(kept) == interrupted // KEPT_EVERY
    state = json.loads(kept[-1]) if kept else None
    again = descend(scorer, start_of(model), chosen, refusals=Refusing(given), state=state, description=None)
    assert [each.to_dict() for each in again] == [each.to_dict() for each in whole]
    assert [PricedPoint.from_dict(each.to_dict()).to_dict() for each in whole] == [each.to_dict() for each in whole]


def test_a_descent_that_was_done_is_read_off_its_state():
    model, given = small("llama"), texts()
    scorer, chosen = Scorer(model, given, tokens=5), options(steps=3)
    kept: list[dict] = []
    found = descend(scorer, start_of(model), chosen, keep=kept.append, description=None)
    refusing = Refusing(given)
    again = descend(scorer, start_of(model), chosen, refusals=refusing, state=kept[-1], description=None)
    assert [each.to_dict() for each in again] == [each.to_dict() for each in found]
    assert refusing.asked == 0


def test_refusals_join_up_to_a_number_and_are_trained_against():
    model, given = small("llama"), texts()
    scorer, refusing = Scorer(model, given, tokens=5), Refusing(given)
    kept: list[dict] = []
    (found,) = descend(
        scorer, start_of(model), options(joined=3), refusals=refusing, keep=kept.append, description=None
    )
    # Before steps 0, 4 and 8, two each time.
    assert refusing.asked == 3
    assert found.point.facts["joined"] == 3
    joined = Texts.from_dict(kept[-1]["joined"]).refused
    assert len(joined) == 3
    assert len(scorer.texts.refused) == len(given.refused)


def test_what_has_joined_is_trained_against():
    model, given = small("llama"), texts()
    # Against what the first texts ask for, so that nothing but these makes them unlikelier.
    swapped = [Choice(prompt=c.prompt, text="", refusal=c.answer, answer=c.refusal) for c in given.refused]
    scorer, start, chosen = Scorer(model, given, tokens=5), start_of(model), options(batch=16, answers=0.0, steps=20)
    (found,) = descend(scorer, start, chosen, refusals=lambda _: swapped, description=None)
    (without,) = descend(scorer, start, chosen, description=None)
    assert found.point.facts["joined"] == len(swapped)
    assert found.score.ratios.mean() > without.score.ratios.mean() + 1


def test_what_is_there_does_not_join_again():
    model, given = small("llama"), texts()
    scorer = Scorer(model, given, tokens=5)
    (found,) = descend(scorer, start_of(model), options(), refusals=lambda _: list(given.refused), description=None)
    assert found.point.facts["joined"] == 0
    assert found.point.facts["refused"] == len(given.refused)
    (without,) = descend(scorer, start_of(model), options(), description=None)
    assert found.point.digest == without.point.digest


def test_the_seed_decides():
    model, given = small("llama"), texts()
    scorer = Scorer(model, given, tokens=5)
    runs = [descend(scorer, start_of(model), options(seed=seed), description=None)[0] for seed in (0, 0, 1)]
    assert runs[0].to_dict() == runs[1].to_dict()
    assert runs[0].point.digest != runs[2].point.digest


def test_every_text_comes_once_before_one_comes_again():
    model, given = small("llama"), texts()
    asked: list[list[int]] = []

    class Noting(Scorer):
        def gradient(self, *args, **kwargs):
            asked.append(list(kwargs["refused"]))
            return super().gradient(*args, **kwargs)

    chosen = options(batch=3, steps=8)
    descend(Noting(model, given, tokens=5), start_of(model), chosen, description=None)
    drawn = [number for some in asked for number in some]
    assert len(drawn) == 24
    passes = [drawn[at : at + 4] for at in range(0, 24, 4)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in passes)
    assert len({tuple(each) for each in passes}) > 1


def test_weights_get_no_gradients_and_their_flags_are_as_they_were():
    model, given = small("llama"), texts()
    first, *others = model.model.parameters()
    first.requires_grad_(False)
    descend(Scorer(model, given, tokens=5), start_of(model), options(), description=None)
    assert not first.requires_grad
    assert all(parameter.requires_grad for parameter in others)
    assert all(parameter.grad is None for parameter in (first, *others))


def test_a_model_without_gradients_is_refused_by_name():
    model, given = small("llama"), texts()
    scorer = Scorer(model, given, tokens=5)
    handle = model.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    try:
        with pytest.raises(UnsupportedError, match="lets no gradients through"):
            descend(scorer, start_of(model), options(), description=None)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("start", "given", "message"),
    [
        ({"count": 3}, texts(), "`directions=2`: the start has 3"),
        ({"keep_norms": True}, texts(), "does not keep norms"),
        ({}, Texts(refused=(), ordinary=texts().ordinary), "the training texts have none"),
    ],
)
def test_what_cannot_be_started_from_is_refused(start, given, message):
    model = small("llama")
    with pytest.raises(UsageError, match=message):
        descend(Scorer(model, given, tokens=5), start_of(model, **start), options(), description=None)
