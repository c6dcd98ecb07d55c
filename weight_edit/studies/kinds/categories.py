"""A direction for each category of refused requests: angles, trade-off curves, wording."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.finders.random_control import random_rows
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import CONTROL, Positive
from weight_edit.runtime.hooks import Hook, addition_hook, hooked
from weight_edit.runtime.points import Point
from weight_edit.studies.category_directions import between, cosines, stability, unit_difference
from weight_edit.studies.category_tables import draw_cosines, wording_apart, wording_table
from weight_edit.studies.curves import curve_distance, draw_curves
from weight_edit.studies.lab import Lab
from weight_edit.studies.places import Place, need_set, place_of, stream_of
from weight_edit.studies.registry import study
from weight_edit.studies.rows import rate_row
from weight_edit.studies.settings import Layer, Position, Prompts
from weight_edit.studies.tables import write_table
from weight_edit.utils.settings import Section

_X, _Y = "over_refusal_rate", "refusal_rate"


class Category(Section):
    """Prompts of one category: `target` is refused, `baseline` answered."""

    target: Prompts
    baseline: Prompts


class CategoriesOptions(Section):
    """Settings of the category study.

    Attributes:
        categories: by name.
        directions: of the recipe, whose place is used; its own `find` when absent.
        layer, position: another place; the paper's position is -2, and "all" is the mean over all of a prompt's tokens.
        n: prompts of each kind for a direction.
        resamples: directions drawn anew for the stability.
        strengths: of the steering, in units of the mean length of the categories' mean differences.
        harmful, benign: requests that should be refused, and that should not; the recipe's refused set, and its
            answered, over-refused and harmless-looking ones, when empty.
        limit: prompts of each of these sets.
        max_new_tokens: of an answer; the recipe's when absent.
        words: how many first words of a refusal are its wording.
    """

    categories: Annotated[dict[str, Category], Field(min_length=2)]
    directions: str | None = None
    layer: Layer | None = None
    position: Position | None = None
    n: Positive = 32
    resamples: Annotated[int, Field(ge=2)] = 20
    strengths: list[float] = Field(min_length=1, default_factory=lambda: [-1.0, -0.5, 0.5, 1.0, 1.5])
    harmful: list[Prompts] = Field(default_factory=list)
    benign: list[Prompts] = Field(default_factory=list)
    limit: Positive = 50
    max_new_tokens: Positive | None = None
    words: Positive = 8


@study("categories", paper="2602.02132")
def categories(lab: Lab, options: CategoriesOptions) -> dict[str, Any]:
    """Directions per category: their cosines, trade-off curves under steering, and wording.

    Directions are normalised differences in means; steering is `x + alpha r` at one block's input. Writes `cosines`
    (also as a figure), `stability`, `curves` (with `trade-off.png`) and `wording`, each as CSV and JSON, and
    `openings.json`, how refusals begin. A random direction is steered along beside them.

    Returns:
        rows: of each category stability, nearest other category, wording.
        cosine_mean, cosine_min, cosine_max: between categories.
        stability_mean: mean cosine between resampled directions.
        curve_distance: between two categories' trade-off curves, mean over the pairs; `_max` the largest.
        control_distance: from a category's curve to that of the random direction, mean.
        strength_spread: standard deviation between categories of the two rates at the same strength, mean.
        wording_apart: how far two directions differ in the wording of what they induce, from 0 to 1, mean over pairs;
            `wording_within` is the same of two halves of what one induces.
        own_wording, others_wording: share of induced refusals that is worded like those of the direction's own
            category, and like those of another one, means.
    """
    place = place_of(lab, options.directions, options.layer, options.position)
    sets = {
        name: tuple(load_prompts(spec).at_most(options.n) for spec in (each.target, each.baseline))
        for name, each in options.categories.items()
    }
    known, steady, length = _directions(lab, options, place, sets)
    matrix = cosines(known)
    names = list(known)
    lines = [{"category": name, **dict(zip(names, matrix[i].tolist(), strict=True))} for i, name in enumerate(names)]
    write_table(lab.folder, "cosines", lines)
    draw_cosines(lab.folder, names, matrix)
    write_table(lab.folder, "stability", [{"category": name, **values} for name, values in steady.items()])

    harmful, benign = _mixed(lab, options)
    mixed = joined([harmful, benign])
    control = random_rows(1, lab.model.anatomy.d_model, lab.seed)[0].double()
    base = _answers(lab, mixed, options, place, None)
    start = {"strength": 0.0, **rates(base, len(harmful))}
    points: dict[str, list[dict[str, Any]]] = {}
    induced: dict[str, list[str]] = {}
    turned: dict[str, list[str]] = {}
    for name, direction in {**known, CONTROL: control}.items():
        rows = [{"direction": name, **start}]
        induced[name], turned[name] = [], []
        for strength in options.strengths:
            said = _answers(lab, mixed, options, place, direction * length * strength)
            rows.append({"direction": name, "strength": strength, **rates(said, len(harmful))})
            induced[name] += newly_refused(base[len(harmful) :], said[len(harmful) :])
            if strength > 0:
                turned[name] += [a.answer for a in said[: len(harmful)] if _refused(a) and a.category != name]
        points[name] = sorted(rows, key=lambda row: row["strength"])
        lab.log(f"{name}: {len(induced[name])} benign requests newly refused, at {len(options.strengths)} strengths")
    write_table(lab.folder, "curves", [row for rows in points.values() for row in rows])
    draw_curves(lab.folder, "trade-off", points, _X, _Y)

    own_answers = _answers(lab, joined([target for target, _ in sets.values()]), options, place, None)
    refusals = {answer.prompt: answer.answer for answer in own_answers if _refused(answer)}
    own = {name: [refusals[p] for p in target.prompts if p in refusals] for name, (target, _) in sets.items()}
    worded = wording_table(lab.folder, induced, turned, own, options.words)
    differing = wording_apart({name: induced[name] for name in known}, options.words)
    return {
        "rows": _summary(names, matrix, steady, {row["direction"]: row for row in worded}),
        **{f"cosine_{key}": value for key, value in between(matrix).items()},
        "stability_mean": sum(each["mean"] for each in steady.values()) / len(steady),
        **likeness(points),
        "wording_apart": differing["between"],
        "wording_within": differing["within"],
        "own_wording": _mean([row["own"] for row in worded]),
        "others_wording": _mean([row["others"] for row in worded]),
    }


def rates(answers: tuple[Answer, ...], harmful: int) -> dict[str, float]:
    """The paper's accuracy, refusal rate and over-refusal rate, with intervals.

    Args:
        answers: to the harmful requests first, then to the benign ones.
        harmful: how many are harmful.
    """
    refused = [_refused(answer) for answer in answers]
    complied = sum(answer.verdict is Verdict.ANSWERED for answer in answers[harmful:])
    return {
        **rate_row("accuracy", Rate(sum(refused[:harmful]) + complied, len(refused))),
        **rate_row(_Y, Rate(sum(refused[:harmful]), harmful)),
        **rate_row(_X, Rate(sum(refused[harmful:]), len(refused) - harmful)),
    }


def newly_refused(before: tuple[Answer, ...], after: tuple[Answer, ...]) -> list[str]:
    """The refusals of requests that were answered before."""
    return [
        new.answer for old, new in zip(before, after, strict=True) if old.verdict is Verdict.ANSWERED and _refused(new)
    ]


def likeness(points: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """The distances of the curves to one another and to the control's, and at equal strengths."""
    names = [name for name in points if name != CONTROL]
    pairs = [curve_distance(points[one], points[other], _X, _Y) for one, other in combinations(names, 2)]
    apart = [curve_distance(points[name], points[CONTROL], _X, _Y) for name in names]
    near = [value for value in pairs if value is not None]
    far = [value for value in apart if value is not None]
    values = torch.tensor([[[row[_X], row[_Y]] for row in points[name]] for name in names], dtype=torch.float64)
    return {
        "curve_distance": sum(near) / len(near) if near else None,
        "curve_distance_max": max(near, default=None),
        "control_distance": sum(far) / len(far) if far else None,
        "strength_spread": float(values.std(dim=0, unbiased=False).mean()),
    }


def _directions(
    lab: Lab, options: CategoriesOptions, place: Place, sets: dict[str, tuple[PromptSet, ...]]
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]], float]:
    """Unit directions, their stability, and the mean length of the differences."""
    known, steady, lengths = {}, {}, []
    for name, pair in sets.items():
        target, baseline = (
            stream_of(lab, prompts, [Point("resid_pre", place.layer)], place.position)[:, 0] for prompts in pair
        )
        known[name] = unit_difference(target, baseline)
        steady[name] = stability(target, baseline, options.resamples, lab.seed)
        lengths.append(float((target.mean(dim=0) - baseline.mean(dim=0)).norm()))
    return known, steady, sum(lengths) / len(lengths)


def _mixed(lab: Lab, options: CategoriesOptions) -> tuple[PromptSet, PromptSet]:
    """The requests that should be refused, and those that should not."""
    if options.harmful:
        harmful = [load_prompts(spec) for spec in options.harmful]
    else:
        harmful = [need_set(lab, "refused")]
    if options.benign:
        benign = [load_prompts(spec) for spec in options.benign]
    else:
        roles = ("over_refused", "harmless_looking")
        benign = [need_set(lab, "answered"), *(found for role in roles if (found := lab.sets.get(role)) is not None)]
    taken = joined(harmful, options.limit)
    # A request in both is a harmful one.
    kept = [each for each in joined(benign, options.limit).prompts if each not in set(taken.prompts)]
    return taken, PromptSet.of("benign", kept)


def answers_of(
    lab: Lab, prompts: PromptSet, hooks: Sequence[Hook] = (), *, max_new_tokens: int | None = None
) -> tuple[Answer, ...]:
    """The greedy answer to each prompt with its verdict; no other figure is computed.

    Raises:
        UsageError: there are no prompts, or one is too long.
    """
    # Without known answers there is no loss to compute.
    asked = replace(prompts, answers=(None,) * len(prompts))
    with hooked(lab.model.model, hooks):
        found = evaluate(
            lab.model,
            refused=asked,
            chat_format=lab.format,
            max_new_tokens=max_new_tokens or lab.max_new_tokens,
            judges=lab.judges,
        )
    return found.answers


def joined(sets: Sequence[PromptSet], limit: int | None = None) -> PromptSet:
    """Several sets as one: at most `limit` prompts of each, each prompt once.

    Raises:
        UsageError: there are no prompts at all.
    """
    some = [each.at_most(limit) for each in sets]
    return PromptSet.of(
        " + ".join(each.name for each in some),
        [prompt for each in some for prompt in each.prompts],
        [answer for each in some for answer in each.answers],
        [category for each in some for category in each.categories],
    )


def _answers(
    lab: Lab, prompts: PromptSet, options: CategoriesOptions, place: Place, vector: Tensor | None
) -> tuple[Answer, ...]:
    hooks = [] if vector is None else [addition_hook(lab.model, place.layer, vector)]
    return answers_of(lab, prompts, hooks, max_new_tokens=options.max_new_tokens)


def _summary(
    names: list[str], matrix: Tensor, steady: dict[str, dict[str, float]], worded: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for index, name in enumerate(names):
        others = matrix[index].clone()
        others[index] = -torch.inf
        nearest = int(others.argmax())
        rows.append(
            {
                "category": name,
                "stability": steady[name]["mean"],
                "nearest": names[nearest],
                "cosine": float(others[nearest]),
                **{key: worded[name][key] for key in ("induced", "most_common", "own")},
            }
        )
    return rows


def _refused(answer: Answer) -> bool:
    return answer.verdict is Verdict.REFUSED


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
