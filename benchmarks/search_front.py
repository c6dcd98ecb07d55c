"""Fronts of searches at equal cost, judged on held-out prompts: `python benchmarks/search_front.py --model organism`.

For each seed, texts are made of training and validation prompts, the published settings are scored, and one descent is
run; the seconds of the processor that both take are the budget. Against it: the plain full ablation; the published
settings alone; and samplers over kernels, which begin with the published settings and go on until they have taken the
budget, and four times the budget. `heretic` is TPE in the ranges of p-e-w/heretic, without the published settings,
`tpe` in this project's ranges. The first lines tell the seconds for directions and texts, which all methods share.

Every method is given by the front of its scores on training texts. That front is scored again on validation texts,
where what was gained by chance is lost, and some points of it are generated from on validation prompts and judged by
`phrases`. One JSON line each, and at the end the means over seeds with 95% intervals (Student's t). `hypervolume` is
that of `search.front`: refusal from 0 to 1, damage from 1e-4 to 1 nat per token on a logarithmic scale.

Real models: `--model FOLDER --refused FILE --ordinary FILE --held-refused FILE --held-ordinary FILE --dtype auto`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from weight_edit.directions.find import find_requested
from weight_edit.directions.find_folder import SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.selection import SelectionRule
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.search.descent import DescentOptions, descend
from weight_edit.search.front import FrontPoint, front, hypervolume
from weight_edit.search.own_texts import MadeTexts, SearchPrompts, made_texts, new_refusals
from weight_edit.search.places import Places
from weight_edit.search.point import Point
from weight_edit.search.sampling import sampled
from weight_edit.search.score import Score, Scorer
from weight_edit.search.space import HERETIC, Space, published

GENERATION = 16
"""Candidates that are drawn from one history, and scored in one request."""


@dataclass(frozen=True)
class Tried:
    """A candidate with its score on training texts, and the processor's seconds when it was known."""

    point: Point
    score: Score
    at: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model with the texts of one seed.

    Attributes:
        space: what samplers draw, in this project's ranges.
        training, validation: what scores.
        texts: of both.
        speaker: generates, and judges.
        seed: of whatever is drawn.
        judged: points of each front that are generated from.
    """

    space: Space
    training: Scorer
    validation: Scorer
    texts: MadeTexts
    speaker: Speaker
    seed: int
    judged: int

    def scored(self, points: Sequence[Point], began: float) -> list[Tried]:
        """Points with their scores; those that keep norms share no batch."""
        found = self.training.scores(points)
        return [Tried(point, score, time.process_time() - began) for point, score in zip(points, found, strict=True)]

    def drawn(self, sampler: str, seconds: float) -> list[Tried]:
        """The candidates of a sampler within some seconds, and the published settings before them."""
        heretic = sampler == "heretic"
        space = replace(self.space, attention=HERETIC, mlp=HERETIC, embedding=(0.0,)) if heretic else self.space
        began = time.process_time()
        found = [] if heretic else self.scored(published(space), began)
        generation = 0
        while time.process_time() - began < seconds:
            history = [(each.point.facts["params"], each.score.objectives) for each in found]
            values = sampled(
                space,
                history,
                GENERATION,
                seed=self.seed,
                generation=generation,
                sampler="tpe" if heretic else sampler,
            )
            found += self.scored([space.point(params) for params in values], began)
            generation += 1
        return found

    def descended(self, options: dict[str, Any]) -> list[Tried]:
        """The published settings, and the points of a descent from the plain full ablation among them."""
        began = time.process_time()
        found = self.scored(published(self.space), began)
        texts = self.texts.training.refused

        def refusals(point: Point) -> list[Any]:
            return [each for each in new_refusals(self.speaker, point, texts) if each is not None]

        reached = descend(
            self.training,
            found[0].point,
            DescentOptions(seed=self.seed, **options),
            unit=found[0].score.damage,
            refusals=refusals,
            description=None,
        )
        took = time.process_time() - began
        return [*found, *(Tried(each.point, each.score, took) for each in reached)]

    def figures(self, tried: Sequence[Tried]) -> dict[str, Any]:
        """What there is to say of some candidates: of their front, held-out scores and judged answers of it."""
        by_digest = {each.point.digest: each for each in tried}
        best = front([placed(each.point, each.score) for each in tried])
        points = [by_digest[each.digest].point for each in best]
        held = self.validation.scores(points)
        shown = [points[i] for i in spread(len(points), self.judged)]
        judged = [self.judge(point) for point in shown]
        damage = dict(zip([point.digest for point in points], [each.damage for each in held], strict=True))
        rated = [
            FrontPoint(digest=point.digest, refusal=each["refused"], damage=damage[point.digest])
            for point, each in zip(shown, judged, strict=True)
        ]
        least = [each for each in rated if each.refusal <= 0.05]
        return {
            "candidates": len(tried),
            "seconds": round(max(each.at for each in tried), 1),
            "front": len(best),
            "volume, training": round(hypervolume(best), 4),
            "volume, held out": round(
                hypervolume([placed(point, score) for point, score in zip(points, held, strict=True)]), 4
            ),
            "volume, judged": round(hypervolume(rated), 4),
            "damage at 5% judged": min((round(each.damage, 5) for each in least), default=None),
            "judged": [
                {"origin": point.origin, "damage": round(damage[point.digest], 5), **each}
                for point, each in zip(shown, judged, strict=True)
            ],
        }

    def judge(self, point: Point) -> dict[str, float]:
        """The judged rates on validation prompts."""
        texts = self.texts.validation
        rates = {}
        with hooked(self.speaker.model.model, point.variant(self.speaker.model).hooks):
            for name, given in (("refused", texts.refused), ("over-refused", texts.over_refused)):
                if given:
                    said = self.speaker.answers(
                        [each.asked for each in given], [each.text for each in given], description=None
                    )
                    rates[name] = round(sum(each.refused for each in said) / len(said), 4)
                    if any(each.known for each in given):
                        right = [a.text.strip() == b.known for a, b in zip(said, given, strict=True)]
                        rates[f"{name}, known answer"] = round(sum(right) / len(right), 4)
        return rates


def placed(point: Point, score: Score) -> FrontPoint:
    """A point by its cheap score."""
    return FrontPoint(digest=point.digest, refusal=score.refusal, damage=score.damage, over_refusal=score.over_refusal)


def spread(count: int, most: int) -> list[int]:
    """At most so many numbers below a count, as far apart as can be, both ends among them."""
    return sorted({round(each) for each in np.linspace(0, count - 1, min(count, most))})


def interval(values: Sequence[float]) -> str:
    """The mean of seeds with its 95% interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.4f} +- {half:.4f}"


def setting(model: Model, given: argparse.Namespace, seed: int) -> Setting:
    """Directions and texts of one seed."""
    chat = ChatFormat(model.tokenizer)

    def some(name: str, organisms: str) -> PromptSet:
        return load_prompts(getattr(given, name) or f"organism:{organisms}")

    refused, ordinary = some("refused", "refused:train"), some("ordinary", "answered:train")
    held = some("held_refused", "refused:validation"), some("held_ordinary", "answered:validation")
    over = load_prompts(given.over_refused) if given.over_refused else None
    began = time.process_time()
    request = FindRequest(
        target=(refused,),
        baseline=ordinary,
        validation_target=(held[0],),
        validation_baseline=held[1],
        rule=SelectionRule(max_layer_fraction=None),
        n_train=given.find,
        n_validation=min(32, given.find),
        n_more=0,
        best_effort=True,
        seed=seed,
    )
    kept = SearchFolder(path=None, inputs={})
    directions = find_requested(request, model, chat, scores=kept)
    assert kept.searched is not None
    space = Space(places=Places.of({"mean-difference": (kept.searched, directions)}))
    speaker = Speaker(model=model, chat=chat, judge=JudgeSpec.parse("phrases"), max_new_tokens=given.length)
    found = time.process_time()
    texts = made_texts(
        speaker,
        SearchPrompts(
            refused=refused, ordinary=ordinary, over_refused=over, held_refused=held[0], held_ordinary=held[1]
        ),
        published(space)[0],
        n_train=given.train,
        n_validation=given.validation,
        seed=seed,
        known_answers=True,
    )
    said = {
        "seed": seed,
        "find": [directions.metadata["position"], directions.metadata["layer"]],
        "seconds, find": round(found - began, 1),
        "seconds, texts": round(time.process_time() - found, 1),
        "texts": [
            [len(part.refused), len(part.ordinary), len(part.over_refused)]
            for part in (texts.training, texts.validation)
        ],
    }
    print(json.dumps(said), flush=True)
    return Setting(
        space=space,
        training=Scorer(model, texts.training, tokens=given.tokens),
        validation=Scorer(model, texts.validation, tokens=given.tokens),
        texts=texts,
        speaker=speaker,
        seed=seed,
        judged=given.judged,
    )


def methods(at: Setting, given: argparse.Namespace) -> "dict[str, Callable[[], list[Tried]]]":
    """What is compared, by name, with the descent first, whose seconds are the budget."""
    descent = at.descended({**given.descent})
    budget = given.seconds or max(each.at for each in descent)

    def first() -> list[Tried]:
        return at.scored(published(at.space), time.process_time())

    found: dict[str, Callable[[], list[Tried]]] = {
        "descent": lambda: descent,
        "plain": lambda: first()[:1],
        "published": first,
    }
    for number, options in enumerate(given.other_descents):
        found[f"descent {number + 2}"] = lambda options=options: at.descended(options)  # type: ignore[misc]
    for name in given.samplers:
        whole: list[Tried] = []

        def drawn(times: int, name: str = name, whole: list[Tried] = whole) -> list[Tried]:
            if not whole:
                whole.extend(at.drawn(name, max(given.times) * budget))
            return [each for each in whole if each.at <= times * budget]

        for times in given.times:
            found[f"{name} x{times}"] = lambda drawn=drawn, times=times: drawn(times)  # type: ignore[misc]
    return found


def main() -> None:
    """Print one JSON line for each method and seed, and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--dtype", default="float32")
    for name in ("refused", "ordinary", "held-refused", "held-ordinary", "over-refused"):
        parser.add_argument(f"--{name}", help="prompts; the organism's own where none are given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "heretic"])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4], help="budgets of the samplers")
    parser.add_argument("--seconds", type=float, help="the budget, instead of what the descent takes")
    parser.add_argument("--find", type=int, default=128, help="training prompts of each kind for directions")
    parser.add_argument("--train", type=int, default=48, help="training prompts of each kind for scores")
    parser.add_argument("--validation", type=int, default=48, help="validation prompts of each kind")
    parser.add_argument("--tokens", type=int, default=12, help="of each continuation")
    parser.add_argument("--length", type=int, default=64, help="tokens of an answer that is judged")
    parser.add_argument("--judged", type=int, default=6, help="points of each front that are judged")
    parser.add_argument("--descent", type=json.loads, default={}, help="settings of the descent, as JSON")
    parser.add_argument("--other-descents", type=json.loads, nargs="*", default=[], help="further ones, as JSON")
    given = parser.parse_args()

    model = load(given.model, dtype=given.dtype)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        at = setting(model, given, seed)
        for name, tried in methods(at, given).items():
            row = at.figures(tried())
            found.setdefault(name, []).append(row)
            print(json.dumps({"method": name, "seed": seed, **row}), flush=True)
    for name, rows in found.items():
        volumes = {key: interval([row[key] for row in rows]) for key in rows[0] if key.startswith("volume")}
        at_five = [row["damage at 5% judged"] for row in rows]
        counts = [row["candidates"] for row in rows]
        print(json.dumps({"method": name, **volumes, "damage at 5% judged": at_five, "candidates": counts}))


if __name__ == "__main__":
    main()
