"""The next candidates of a search, drawn by a sampler of Optuna from the results so far."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from weight_edit.errors import UsageError
from weight_edit.search.request import SAMPLERS
from weight_edit.search.space import DIGITS, OneOf, Parameter, Space, Value, Whole
from weight_edit.utils.arrays import Floats
from weight_edit.utils.extras import is_installed, need
from weight_edit.utils.names import check_known

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Params: TypeAlias = Mapping[str, Value]
Told: TypeAlias = tuple[Params, Sequence[float] | None]
"""Drawn values and their scores, the smaller the better; None of a candidate that lost before it was scored whole."""

STARTUP = 24
"""Results before which draws are random."""

POPULATION = 12
"""Parents of a generation of NSGA-II, at most."""

LEAST_DAMAGE = 1e-6
"""The damage (nats) below which none is told apart: the logarithm is what a sampler is told."""

_AGAIN = 20
"""Draws after which a candidate that is known already is given up."""


def sampled(
    space: Space,
    history: Sequence[Told],
    count: int,
    *,
    seed: int,
    generation: int,
    sampler: str = "tpe",
    startup: int = STARTUP,
) -> list[dict[str, Value]]:
    """The values of the next candidates, which follow from the arguments alone.

    An Optuna study in memory is told the history and asked `count` times. What it was asked before in the same call is
    still running for it, and TPE keeps off that ("constant liar"); what is known already is not drawn again.

    Scores are refusal, damage, and over-refusal where it is measured. The sampler is told the logarithm of the damage,
    which spans orders of magnitude. What lost in a rung is told as pruned, without its scores: an estimate from few
    prompts, the lucky one of many, is not to pass for one of the best. So is what has a score that is no number.
    CMA-ES knows one objective; it is told the order of candidates by the front that each is on, and how crowded it is
    there, and begins each generation from the distribution of the best ones (warm start, arXiv 2012.06932).

    Args:
        history: of the whole search, in an order that all machines agree on. Settings that the space does not hold say
            nothing and are passed over.
        count: how many are drawn; fewer come back only where the space has no more.
        seed, generation: what is drawn by; another generation draws otherwise.
        sampler: one of `SAMPLERS`.
        startup: results before which draws are random.

    Raises:
        UsageError: no such sampler, or a library that it needs is not installed.
    """
    check_known("sampler", sampler, SAMPLERS)
    need("optuna", "a search that draws candidates", "sampler")
    if sampler == "cma-es" and not is_installed("cmaes"):
        raise UsageError(
            "`sampler='cma-es'` needs cmaes, which is not installed: pip install cmaes, or take another sampler",
            option="sampler",
        )
    told = [(dict(params), _objectives(values)) for params, values in history if space.holds(params)]
    known = {_key(params) for params, _ in history}
    state = int(np.random.SeedSequence([seed, generation]).generate_state(1)[0])
    with _quiet():
        study = _study(space, told, sampler, state, startup)
        # Where a sampler comes back to what is known again and again, chance goes on.
        chance = study if sampler == "random" else _study(space, [], "random", state, startup)
        found: list[dict[str, Value]] = []
        for _ in range(count):
            for asked in [study] * _AGAIN + [chance] * _AGAIN:
                drawn = _drawn(asked, space)
                if _key(drawn) not in known:
                    known.add(_key(drawn))
                    found.append(drawn)
                    break
    return found


def _drawn(study: "Study", space: Space) -> dict[str, Value]:
    trial = study.ask(_distributions(space))
    return {name: _rounded(each, trial.params[name]) for name, each in space.parameters.items()}


def _study(
    space: Space, told: Sequence[tuple[Params, list[float] | None]], sampler: str, seed: int, startup: int
) -> "Study":
    """A study in memory that has been told the history."""
    import optuna
    from optuna.trial import TrialState, create_trial

    whole = [values for _, values in told if values is not None]
    if len({len(values) for values in whole}) > 1:
        raise ValueError("candidates of one search have unlike many objectives")
    objectives = len(whole[0]) if whole else 2
    scores: list[list[float] | None] = [values for _, values in told]
    if sampler == "cma-es":
        order, objectives = iter(ranked(whole)), 1
        scores = [None if values is None else [float(next(order))] for values in scores]
    distributions = _distributions(space)
    trials = [
        create_trial(
            state=TrialState.PRUNED if values is None else TrialState.COMPLETE,
            params=dict(params),
            distributions=distributions,
            values=values,
            # All results are one generation to NSGA-II, which takes the best of them for parents.
            system_attrs={"NSGAIISampler:generation": 0},
        )
        for (params, _), values in zip(told, scores, strict=True)
    ]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(
        directions=["minimize"] * objectives, sampler=_sampler(sampler, complete, seed, startup)
    )
    study.add_trials(trials)
    return study


def _sampler(name: str, complete: "Sequence[FrozenTrial]", seed: int, startup: int) -> "BaseSampler":
    from optuna import samplers

    if name == "tpe":
        # What p-e-w/heretic sets, but for the number of random draws.
        return samplers.TPESampler(
            n_startup_trials=startup, n_ei_candidates=128, multivariate=True, constant_liar=True, seed=seed
        )
    if len(complete) < max(startup, 2) or name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsga-ii":
        crossover = samplers.nsgaii.SBXCrossover()
        return samplers.NSGAIISampler(population_size=min(POPULATION, len(complete)), crossover=crossover, seed=seed)
    others = samplers.TPESampler(n_startup_trials=startup, multivariate=False, constant_liar=True, seed=seed)
    return samplers.CmaEsSampler(
        n_startup_trials=1,
        source_trials=[_numbers(trial) for trial in complete],
        # Values without an order, which an evolution strategy has no use for.
        independent_sampler=others,
        warn_independent_sampling=False,
        seed=seed,
    )


def _numbers(trial: "FrozenTrial") -> "FrozenTrial":
    """A trial with the parameters alone that are numbers, which an evolution strategy can go on from."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    distributions = {
        name: each for name, each in trial.distributions.items() if not isinstance(each, CategoricalDistribution)
    }
    params = {name: trial.params[name] for name in distributions}
    return create_trial(params=params, distributions=distributions, value=trial.value)


def ranked(values: Sequence[Sequence[float]]) -> list[int]:
    """The place of each candidate in the order of NSGA-II, 0 for the first (Deb et al. 2002).

    By the front that it is on, the candidates that none is better than in all objectives being the first, those of what
    is left the second and so on; on one front by how far apart its neighbours are, the loneliest first.
    """
    if not values:
        return []
    points = np.array(values, dtype=np.float64)
    first, second = points[:, None], points[None]
    better: NDArray[np.bool_] = np.all(first <= second, axis=-1) & np.any(first < second, axis=-1)
    left = np.arange(len(points))
    order: list[int] = []
    while len(left):
        beaten = better[np.ix_(left, left)].any(axis=0)
        front = left[~beaten]
        order += front[np.argsort(-_crowding(points[front]), kind="stable")].tolist()
        left = left[beaten]
    places = [0] * len(points)
    for place, number in enumerate(order):
        places[number] = place
    return places


def _crowding(points: Floats) -> Floats:
    """How far apart the neighbours of each point are along the objectives; infinite at the ends."""
    found = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        width = values[order[-1]] - values[order[0]]
        found[order[[0, -1]]] = math.inf
        if width > 0:
            found[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / width
    return found


def _objectives(values: Sequence[float] | None) -> list[float] | None:
    """What a sampler is told of scores: refusal, the logarithm of damage, over-refusal where there is any."""
    if values is None or not all(math.isfinite(each) for each in values):
        return None
    refusal, damage, *over = values
    # A digit more than matters, so that it does not matter how a machine takes logarithms.
    return [float(refusal), round(math.log10(max(damage, LEAST_DAMAGE)), 9), *map(float, over)]


def _distributions(space: Space) -> "dict[str, BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(parameter: Parameter) -> "BaseDistribution":
        if isinstance(parameter, OneOf):
            return CategoricalDistribution(parameter.options)
        if isinstance(parameter, Whole):
            return IntDistribution(parameter.low, parameter.high)
        return FloatDistribution(parameter.low, parameter.high)

    return {name: of(each) for name, each in space.parameters.items()}


def _rounded(parameter: Parameter, value: Value) -> Value:
    """A drawn value, a real one with `DIGITS` digits behind the point, unless that leads out of its range."""
    if isinstance(parameter, OneOf | Whole):
        return value
    assert isinstance(value, float)
    return min(max(round(value, DIGITS), parameter.low), parameter.high)


def _key(params: Params) -> str:
    return json.dumps(dict(params), sort_keys=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, Optuna says nothing: its notes are not for those who called a search."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
