"""Fronts of the search and of samplers, judged on prompts that none saw: `python benchmarks/search_front.py`.

For each seed the search is run (`search_edits`: published settings, a sampler in races, descents). What it spends on
candidates is the budget, in seconds of the processor. Against it:

- plain: the full ablation of the direction that `find` chose, alone;
- published: the first generation, alone;
- tpe xN: a sampler over kernels that begins with the published settings, scores every draw exactly, and has N times the
  budget.

All read the same directions and the same texts. Of each method's candidates, the contenders by training scores are
scored on validation texts, and the few points that show most of the front by these (`covering`) answer the test prompts
and are judged by `phrases`. Damage is the divergence on test texts. Directions, texts, that choice and the answers cost
every method alike, and are in no budget. One JSON line for each method and seed, and at the end the means over seeds
with 95% intervals (Student's t). `volume` is that of `search.front` by judged refusal and damage, with over-refusal as
a third side where there are prompts for it; damage from 1e-4 to 1 nat per token on a logarithmic scale.

Real models: `--model FOLDER --dtype auto`, and files for `--refused`, `--held-refused`, `--test-refused`, the same of
`--ordinary`, and where there are any `--over-refused` and `--test-over-refused`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from weight_edit.directions.find import find_requested
from weight_edit.directions.find_folder import SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.samples import MIN_TRAIN
from weight_edit.directions.selection import SelectionRule
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model, load
from weight_edit.search.candidate import Candidate, contenders, place
from weight_edit.search.front import by_damage, covering, front, hypervolume
from weight_edit.search.own_texts import MadeTexts, SearchPrompts, made_texts
from weight_edit.search.places import Places
from weight_edit.search.point import Point
from weight_edit.search.progress import Progress
from weight_edit.search.request import SearchRequest
from weight_edit.search.rungs import ORDINARY, JudgedPoint, judged_points, judged_sets
from weight_edit.search.sampling import sampled
from weight_edit.search.score import Scorer
from weight_edit.search.search import search_edits
from weight_edit.search.space import Space, published
from weight_edit.utils.progress import set_quiet

GENERATION = 16
"""Candidates that are drawn from one history, and scored in one request."""

SPENT = ("published settings", "sampler", "descents")
"""Steps of the search that are its budget."""

ORGANISM = {"refused": "refused", "ordinary": "answered", "over_refused": "over-refused"}
"""The organism's prompt sets."""


class Seconds:
    """Of the processor, by step of a search."""

    def __init__(self) -> None:
        self.by_step: dict[str, float] = {}
        self._step, self._began = "", time.process_time()

    def __call__(self, progress: Progress) -> None:
        """Take note of where a search is."""
        now = time.process_time()
        self.by_step[self._step] = self.by_step.get(self._step, 0.0) + now - self._began
        self._step, self._began = progress.step.rstrip("0123456789 "), now


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all methods of a seed share.

    Attributes:
        space: what samplers draw.
        training, validation, test: what scores.
        seed: of whatever is drawn.
    """

    model: Model
    chat: ChatFormat
    space: Space
    training: Scorer
    validation: Scorer
    test: Scorer
    seed: int
    given: argparse.Namespace

    def scored(self, points: Sequence[Point]) -> list[Candidate]:
        """Points with their scores on training texts."""
        found = zip(points, self.training.scores(points), strict=True)
        return [Candidate(point=point, score=score) for point, score in found]

    def drawn(self, seconds: Sequence[float]) -> list[list[Candidate]]:
        """What a sampler has after so many seconds, ascending."""
        began = time.process_time()
        found = self.scored(published(self.space))
        done: list[list[Candidate]] = []
        generation = 0
        while True:
            spent = time.process_time() - began
            done += [list(found)] * (sum(each <= spent for each in seconds) - len(done))
            if len(done) == len(seconds):
                return done
            told = [(each.point.facts["params"], each.score.objectives) for each in found if each.score is not None]
            values = sampled(
                self.space, told, GENERATION, seed=self.seed, generation=generation, sampler=self.given.sampler
            )
            found += self.scored([self.space.point(params) for params in values])
            generation += 1

    def figures(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """What there is to say of some candidates: the front that is chosen by other prompts, and its answers."""
        some = contenders(candidates, self.given.contenders)
        scores = self.validation.scores([each.point for each in some])
        points = {each.point.digest: each.point for each in some}
        best = front([place(each.point.digest, score) for each, score in zip(some, scores, strict=True)])
        shown = [points[each.digest] for each in sorted(covering(best, self.given.judged), key=by_damage)]
        damage = [each.damage for each in self.test.scores(shown)]
        prompts = judged_sets(self.test.texts)
        if not any(prompts[ORDINARY].answers):
            # The divergence says what becomes of these.
            del prompts[ORDINARY]
        judged = judged_points(
            self.model,
            self.chat,
            JudgeSpec.parse("phrases"),
            shown,
            prompts,
            tokens=self.given.length,
            lengths=(self.given.length,),
            description=None,
        )
        rated = [each.front_point(value) for each, value in zip(judged, damage, strict=True)]
        least = [each for each in rated if each.refusal <= 0.05]
        return {
            "candidates": len(candidates),
            "front": len(best),
            "volume": round(hypervolume(rated), 4),
            "volume without over-refusal": round(hypervolume([replace(each, over_refusal=None) for each in rated]), 4),
            "damage at 5% refused": min((round(each.damage, 5) for each in least), default=None),
            "judged": [
                {"from": point.origin, **_rates(each), "damage": round(value, 5)}
                for point, each, value in zip(shown, judged, damage, strict=True)
            ],
        }


def _rates(judged: JudgedPoint) -> dict[str, Any]:
    """The rates of refusals by set, and of exact answers where some are known."""
    found: dict[str, Any] = {}
    for name, each in judged.sets.items():
        found[name] = round(each.refusal().value, 4)
        if each.exactness is not None:
            found[f"{name}, exact"] = round(each.exactness.value, 4)
    return found


def interval(values: Sequence[float]) -> str:
    """The mean of seeds with its 95% interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.4f} +- {half:.4f}"


def prompts_of(given: argparse.Namespace, kind: str, part: str) -> PromptSet | None:
    """A prompt set: the file that was given, else the organism's where none was."""
    file = getattr(given, {"train": kind, "validation": f"held_{kind}", "test": f"test_{kind}"}[part])
    if file is None:
        return load_prompts(f"organism:{ORGANISM[kind]}:{part}") if given.refused is None else None
    return load_prompts(file)


def searched(
    model: Model, chat: ChatFormat, given: argparse.Namespace, seed: int
) -> tuple[Setting, list[Candidate], float]:
    """What the methods share, the candidates of the search, and the seconds that it spent on them."""
    prompts = {
        f"{part} {kind}": prompts_of(given, kind, part)
        for kind, part in product(("refused", "ordinary"), ("train", "validation", "test"))
    }
    refused, ordinary, held = (prompts[name] for name in ("train refused", "train ordinary", "validation refused"))
    assert refused is not None
    assert ordinary is not None
    assert held is not None
    over = prompts_of(given, "over_refused", "train")
    find = FindRequest(
        target=(refused,),
        baseline=ordinary,
        validation_target=(held,),
        validation_baseline=prompts["validation ordinary"],
        rule=SelectionRule(**{"max_layer_fraction": None, **given.rule}),
        n_train=given.find,
        n_validation=min(32, given.find // 2),
        n_more=0,
        best_effort=True,
        seed=seed,
        **given.find_options,
    )
    request = SearchRequest(
        find=find,
        over_refused=over,
        n_train=given.train,
        n_validation=given.validation,
        tokens=given.tokens,
        sampler=given.sampler,
        lengths=(given.length,),
        judged=8,
        finalists=1,
        seed=seed,
        **given.search,
    )
    seconds = Seconds()
    with tempfile.TemporaryDirectory() as folder:
        result = search_edits(model, request, out=Path(folder) / "search", chat_format=chat, told=seconds)
    # Once more for the others, and on test prompts.
    kept = SearchFolder(path=None, inputs={})
    directions = find_requested(find, model, chat, scores=kept)
    assert kept.searched is not None
    space = Space(places=Places.of({"main": (kept.searched, directions)}))
    speaker = Speaker(model=model, chat=chat, judge=JudgeSpec.parse("phrases"), max_new_tokens=given.length)

    def texts(prompts: SearchPrompts, n_train: int, n_validation: int) -> MadeTexts:
        return made_texts(
            speaker,
            prompts,
            published(space)[0],
            n_train=n_train,
            n_validation=n_validation,
            seed=seed,
            known_answers=True,
        )

    made = texts(SearchPrompts.of(find, over), given.train, given.validation)
    tests = SearchPrompts(
        refused=refused,
        ordinary=ordinary,
        over_refused=over,
        held_refused=prompts["test refused"],
        held_ordinary=prompts["test ordinary"],
        held_over_refused=prompts_of(given, "over_refused", "test"),
    )
    asked = texts(tests, MIN_TRAIN * 2, given.test).validation
    said = {
        "seed": seed,
        "seconds": {step: round(value, 1) for step, value in seconds.by_step.items() if step},
        "candidates": len(result.candidates),
        "texts": {
            part: [len(each.refused), len(each.ordinary), len(each.over_refused)]
            for part, each in (("training", made.training), ("validation", made.validation), ("test", asked))
        },
    }
    print(json.dumps(said), flush=True)
    setting = Setting(
        model=model,
        chat=chat,
        space=space,
        training=Scorer(model, made.training, tokens=given.tokens),
        validation=Scorer(model, made.validation, tokens=given.tokens),
        test=Scorer(model, asked, tokens=given.tokens),
        seed=seed,
        given=given,
    )
    return setting, list(result.candidates), sum(seconds.by_step.get(step, 0.0) for step in SPENT)


def main() -> None:
    """Print one JSON line for each method and seed, and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--dtype", default="float32")
    for kind in ORGANISM:
        for prefix in ("", "held-", "test-") if kind != "over_refused" else ("", "test-"):
            parser.add_argument(f"--{prefix}{kind.replace('_', '-')}", help="a file; the organism's own without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4], help="budgets of the sampler alone")
    parser.add_argument("--find", type=int, default=128, help="training prompts of each kind for directions")
    parser.add_argument("--train", type=int, default=64, help="training prompts of each kind for scores")
    parser.add_argument("--validation", type=int, default=48, help="validation prompts of each kind")
    parser.add_argument("--test", type=int, default=100, help="test prompts of each kind")
    parser.add_argument("--tokens", type=int, default=12, help="of each continuation")
    parser.add_argument("--length", type=int, default=128, help="tokens of an answer that is judged")
    parser.add_argument("--contenders", type=int, default=32, help="points that are scored on validation prompts")
    parser.add_argument("--judged", type=int, default=8, help="points of each front that are judged")
    parser.add_argument("--rule", type=json.loads, default={}, help="bounds of the find, as JSON")
    parser.add_argument("--find-options", type=json.loads, default={}, help="further settings of the find, as JSON")
    parser.add_argument("--search", type=json.loads, default={}, help="settings of the search, as JSON")
    given = parser.parse_args()

    set_quiet(True)
    model = load(given.model, dtype=given.dtype)
    chat = ChatFormat(model.tokenizer)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        setting, candidates, budget = searched(model, chat, given, seed)
        sampled_alone = setting.drawn([times * budget for times in given.times])
        first = setting.scored(published(setting.space))
        methods = {
            "search": candidates,
            "plain": first[:1],
            "published": first,
            **{f"{given.sampler} x{times}": some for times, some in zip(given.times, sampled_alone, strict=True)},
        }
        for name, some in methods.items():
            row = setting.figures(some)
            found.setdefault(name, []).append(row)
            print(json.dumps({"method": name, "seed": seed, **row}), flush=True)
    for name, rows in found.items():
        keys = [key for key in rows[0] if key.startswith("volume")]
        volumes = {key: interval([row[key] for row in rows]) for key in keys}
        # Seeds differ more than methods do, so that methods are compared seed by seed.
        behind = {
            f"{key}, the search's less it": interval(
                [a[key] - b[key] for a, b in zip(found["search"], rows, strict=True)]
            )
            for key in keys
        }
        at_five = [row["damage at 5% refused"] for row in rows]
        counts = [row["candidates"] for row in rows]
        print(json.dumps({"method": name, **volumes, **behind, "damage at 5% refused": at_five, "candidates": counts}))


if __name__ == "__main__":
    main()
