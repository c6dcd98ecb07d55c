"""Candidates follow from the history alone, in every process; and a sampler does better than chance."""

import json
import logging
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.search_places import places, with_som
from weight_edit.errors import UsageError
from weight_edit.search import sampling
from weight_edit.search.request import SAMPLERS
from weight_edit.search.sampling import ranked, sampled
from weight_edit.search.space import KernelRanges, Space, published
from weight_edit.utils.extras import is_installed

pytest.importorskip("optuna")

INSTALLED = [name for name in SAMPLERS if name != "cma-es" or is_installed("cmaes")]
ROOT = Path(__file__).parents[2]


def scores(params: dict, over: bool = False) -> list[float]:
    """A made-up trade: attention at the middle takes refusal away, everything does damage."""
    gain = params["attention.max"] * math.exp(-20 * (params["attention.position"] - 0.5) ** 2)
    damage = 0.01 * params["attention.max"] ** 2 + 0.05 * params["mlp.max"] ** 2 + 0.001
    found = [math.exp(-3 * gain), damage * (1 + (params["layer"] - 3.5) ** 2)]
    return [*found, 0.5 * found[0]] if over else found


def searched(space: Space, sampler: str, generations: int = 6, count: int = 10, seed: int = 0, over: bool = False):
    """A history that a sampler made, from the published settings on."""
    history = [(each.facts["params"], scores(each.facts["params"] | {"layer": 3.0}, over)) for each in published(space)]
    for generation in range(generations):
        drawn = sampled(space, history, count, seed=seed, generation=generation, sampler=sampler)
        assert len(drawn) == count
        history += [(params, scores(params, over)) for params in drawn]
    return history


def volume(history) -> float:
    """The area that the front dominates, of refusal in [0, 1] and the logarithm of damage in [-3, 0]."""
    points = sorted((values[0], math.log10(values[1])) for _, values in history)
    area, best = 0.0, 0.0
    for number, (refusal, damage) in enumerate(points):
        best = min(best, damage)
        following = points[number + 1][0] if number + 1 < len(points) else 1.0
        area += max(0.0, min(1.0, following) - refusal) * -best / 3
    return area


@pytest.mark.parametrize("sampler", INSTALLED)
@pytest.mark.parametrize("over", [False, True])
def test_candidates_are_in_the_space_and_none_comes_twice(sampler: str, over: bool) -> None:
    space = Space(places=with_som(), directions=2, keep_norms=(False, True))
    history = searched(space, sampler, generations=5, over=over)
    drawn = [params for params, _ in history[len(published(space)) :]]
    assert len(drawn) == 50
    assert all(space.holds(params) for params in drawn)
    assert len({json.dumps(params, sort_keys=True) for params, _ in history}) == len(history)
    assert len({space.point(params).digest for params in drawn}) == len(drawn)


@pytest.mark.parametrize("sampler", INSTALLED)
def test_the_same_arguments_give_the_same_candidates_and_others_do_not(sampler: str) -> None:
    space = Space(places=with_som())
    history = searched(space, sampler, generations=3)

    def again(**changes) -> list:
        return sampled(space, history, 6, **({"seed": 0, "generation": 3, "sampler": sampler} | changes))

    assert again() == again()
    assert again() != again(seed=1)
    assert again() != again(generation=4)


PROGRAM = """
import json, sys
from weight_edit.search.sampling import sampled
from weight_edit.search.space import Space

asked = json.load(sys.stdin)
space = Space.from_dict(asked["space"])
found = {
    name: sampled(space, [tuple(each) for each in history], 6, seed=3, generation=7, sampler=name)
    for name, history in asked["histories"].items()
}
json.dump([found, [space.point(params).digest for drawn in found.values() for params in drawn]], sys.stdout)
"""


def test_another_process_draws_the_same_to_the_bit() -> None:
    space = Space(places=with_som(), directions=2)
    histories = {name: searched(space, name, generations=4) for name in INSTALLED}
    given = json.dumps({"space": space.to_dict(), "histories": histories})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        # Sets of strings have another order in it.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONHASHSEED": "1"},
    )
    assert done.stderr == ""
    found = {
        name: sampled(space, history, 6, seed=3, generation=7, sampler=name) for name, history in histories.items()
    }
    digests = [space.point(params).digest for drawn in found.values() for params in drawn]
    assert json.loads(done.stdout) == [found, digests]


@pytest.mark.parametrize("sampler", [name for name in INSTALLED if name != "random"])
def test_a_sampler_finds_a_better_front_than_chance(sampler: str) -> None:
    space = Space(places=places())
    ours, chance = (
        [volume(searched(space, name, generations=10, seed=seed)) for seed in range(3)] for name in (sampler, "random")
    )
    assert np.mean(ours) > np.mean(chance) + 0.01, (ours, chance)


def test_one_history_gives_unlike_candidates() -> None:
    space = Space(places=places())
    history = searched(space, "tpe", generations=4)
    drawn = sampled(space, history, 12, seed=0, generation=9)
    apart = [[abs(a["attention.max"] - b["attention.max"]) for b in drawn] for a in drawn]
    assert np.median(apart) > 0.02


def test_what_lost_in_a_rung_counts_as_bad_however_good_its_estimate() -> None:
    space = Space(places=places(), attention=KernelRanges(max=(0.0, 1.0)))
    history = searched(space, "random", generations=8)
    low = [(params, None if params["attention.max"] > 0.5 else values) for params, values in history]
    drawn = sampled(space, low, 20, seed=0, generation=0)
    assert np.mean([params["attention.max"] > 0.5 for params in drawn]) < 0.2
    assert (
        np.mean([params["attention.max"] > 0.5 for params in sampled(space, history, 20, seed=0, generation=0)]) > 0.5
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_as_lost(bad: float) -> None:
    space = Space(places=places())
    history = searched(space, "tpe", generations=4)
    broken = [(params, None if n % 3 else values) for n, (params, values) in enumerate(history)]
    infinite = [(params, [0.1, bad] if n % 3 else values) for n, (params, values) in enumerate(history)]
    settings = {"seed": 0, "generation": 0}
    assert sampled(space, infinite, 4, **settings) == sampled(space, broken, 4, **settings)


def test_settings_that_the_space_does_not_hold_say_nothing() -> None:
    space = Space(places=places())
    history = searched(space, "tpe", generations=4)
    other = ({**history[-1][0], "keep_norms": True}, [0.0, 0.0])
    settings = {"seed": 0, "generation": 0}
    assert sampled(space, [*history, other], 4, **settings) == sampled(space, history, 4, **settings)


def test_an_edit_without_damage_can_be_told() -> None:
    space = Space(places=places())
    history = [(params, [values[0], 0.0]) for params, values in searched(space, "random", generations=4)]
    assert len(sampled(space, history, 3, seed=0, generation=0)) == 3


def test_fewer_come_where_the_space_has_no_more() -> None:
    fixed = KernelRanges(max=(1.0, 1.0), position=(0.5, 0.5), min=(1.0, 1.0), width=(1.0, 1.0))
    space = Space(places=places(), layers=(3.0, 3.0), attention=fixed, mlp=fixed)
    assert set(space.parameters) == {"position", "embedding"}
    drawn = sampled(space, [], 9, seed=0, generation=0)
    assert len(drawn) == 4
    assert sampled(space, [(params, [0.5, 0.1]) for params in drawn], 9, seed=0, generation=1) == []


def test_optuna_says_nothing_and_is_left_as_it_was(caplog: pytest.LogCaptureFixture, capfd) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.INFO)
    logger = logging.getLogger("optuna")
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in INSTALLED:
                searched(Space(places=with_som()), name, generations=4)
    finally:
        logger.removeHandler(caplog.handler)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_the_order_is_by_fronts_and_the_loneliest_first() -> None:
    points = [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [0.6, 0.6], [0.1, 0.8], [1.0, 1.0]]
    places_of = ranked(points)
    # On the first front the ends come first, then the point whose neighbours are further apart.
    assert places_of == [2, 0, 1, 4, 3, 5]
    assert ranked([]) == []


def test_an_unknown_sampler_and_a_missing_library_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(places=places())
    with pytest.raises(UsageError, match="there is no sampler 'tep'; did you mean 'tpe'"):
        sampled(space, [], 1, seed=0, generation=0, sampler="tep")
    monkeypatch.setattr(sampling, "is_installed", lambda _: False)
    with pytest.raises(UsageError, match=r"^`sampler='cma-es'` needs cmaes, which is not installed"):
        sampled(space, [], 1, seed=0, generation=0, sampler="cma-es")
