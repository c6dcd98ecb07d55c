"""The verb `search` in Python: from a model and prompts to a front of edits, one of which is picked."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from weight_edit.directions.find import find_requested, model_digest, search_inputs
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.shared_search import open_search
from weight_edit.edits.direction_facts import KEPT
from weight_edit.errors import UsageError, VerificationError
from weight_edit.prompts.chat import SENTINELS, ChatFormat
from weight_edit.runtime.loading import Model, loaded
from weight_edit.search.candidate import (
    Candidate,
    best_first,
    contenders,
    finalists,
    on_front,
    place,
    scores_of,
    sketches_of,
    to_judge,
)
from weight_edit.search.descent import SMALLEST_UNIT, PricedPoint, descend
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.folder import SearchOutput, earlier_extent
from weight_edit.search.front import FrontPoint, front
from weight_edit.search.further import further_points
from weight_edit.search.journal import Journal, Keeper, Unit
from weight_edit.search.own_texts import MadeTexts, SearchPrompts, made_texts, new_refusals
from weight_edit.search.pick import DEFAULT_PICK, PickRule
from weight_edit.search.places import Places
from weight_edit.search.point import Point
from weight_edit.search.point_recipe import save_point
from weight_edit.search.progress import Progress, Told, Watch
from weight_edit.search.race import FIRST, race
from weight_edit.search.ranking import kendall
from weight_edit.search.request import SearchRequest
from weight_edit.search.result import Finalist, SearchResult
from weight_edit.search.rungs import ORDINARY, REFUSED, JudgedPoint, judged_points, judged_sets
from weight_edit.search.sampling import sampled
from weight_edit.search.score import Score, Scorer
from weight_edit.search.space import Space, published
from weight_edit.search.texts import KEPT_TOKENS, Choice
from weight_edit.search.trainable import check_differentiable
from weight_edit.utils.settings import validated

MAIN = "main"
"""The find whose choice is the plain ablation."""

TOGETHER = 4
"""Candidates that are scored in one unit: their prompts share the model's passes."""


def search_edits(
    model: Model | str | Path,
    request: SearchRequest,
    *,
    out: str | Path,
    chat_format: ChatFormat | None = None,
    storage: str | None = None,
    found: Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    told: Told | None = None,
) -> SearchResult:
    """Search the edits of a model for those with the least refusal at the least damage.

    Published settings come first, then a sampler's draws and gradient descents; all are scored without generating. Of
    the best, and of others spread over all scores, answers are generated to validation prompts and judged. What comes
    out is the front of the judged points, each as a recipe, and one of them by a rule.

    Everything follows from the model, the request and the seed, so that a search that was killed goes on (`resume`) to
    the same result, and several processes or machines that share a journal do its parts between them.

    Args:
        model: from `load`, or what `load` takes.
        request: prompts and settings.
        out: the folder of the search: journal, points as recipes, and `search.json`.
        chat_format: how prompts become tokens; the tokenizer's chat template when None.
        storage: the address of an SQL database for the journal, which other machines can share; a file in `out` when
            None.
        found: a folder in which an earlier `find` of `request.find` kept what it found; one in `out` when None.
        recipe: what recipes of points say beside the edit: the model, how it is asked, and what is measured.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        resume: go on with an earlier search in `out`, or beside other processes.
        overwrite: begin anew, whatever an earlier search left. With `resume`: only where its inputs were others.
        told: shows progress, see `Progress`.

    Raises:
        UsageError: prompts that are too few or not refused, a wrong setting, an `out` that may not be written, or
            Optuna is not installed.
        UnsupportedError: descents are asked for, and no gradient reaches what is written into the stream.
    """
    # What is a typo is said before a large model is loaded.
    PickRule.parse(request.pick, over_refusal=request.over_refused is not None)
    options = validated(DescentOptions, dict(request.descent), "descent")
    model = loaded(model)
    if request.descents:
        # Before hours of scoring.
        check_differentiable(model)
    chat = ChatFormat(model.tokenizer) if chat_format is None else chat_format
    output = SearchOutput.open(
        out, source=None if model.source.in_memory else model.source.path, resume=resume, overwrite=overwrite
    )
    if not (resume and earlier_extent(output.path)):
        # What another line with `--resume` goes on with where it names nothing else.
        output.write({"status": "running", "extent": request.extent})
    inputs = {f"{name} of the find": value for name, value in _inputs(request.find, model, chat).items()} | request.key
    with Journal.open(
        output.journal if storage is None else storage, inputs, resume=resume, overwrite=overwrite
    ) as journal:
        search = _Search(
            model=model,
            request=request,
            chat=chat,
            options=options,
            output=output,
            journal=journal,
            found=found,
            recipe={"model": model.source.name} if recipe is None else recipe,
            batch_size=batch_size,
            told=told,
        )
        return search.run()


def _inputs(request: FindRequest, model: Model, chat: ChatFormat) -> dict[str, Any]:
    """What the results of a find depend on."""
    return search_inputs(
        request,
        model=model_digest(model),
        dtype=str(model.dtype).removeprefix("torch."),
        chat_format=[list(chat.encode(prompt)) for prompt in SENTINELS[:2]],
    )


def _added(rungs: Sequence[Mapping[str, Any]]) -> list[dict[str, int]]:
    """The rungs of all races, by the number of prompts that had been asked, with sums of all that counts."""
    sums: dict[int, dict[str, int]] = {}
    for rung in rungs:
        asked = rung["asked"]["refused"]
        total = sums.setdefault(asked, {"asked": asked})
        for name in ("candidates", "exact", "paired", "on", "prompts", "tokens"):
            total[name] = total.get(name, 0) + rung[name]
    return [sums[asked] for asked in sorted(sums)]


class _Search:
    """A search under way: what its steps share."""

    def __init__(
        self,
        *,
        model: Model,
        request: SearchRequest,
        chat: ChatFormat,
        options: DescentOptions,
        output: SearchOutput,
        journal: Journal,
        found: Path | None,
        recipe: Mapping[str, Any],
        batch_size: int | None,
        told: Told | None,
    ) -> None:
        self.model, self.request, self.chat, self.options = model, request, chat, options
        self.output, self.journal, self.found, self.recipe, self.batch_size = output, journal, found, recipe, batch_size
        self.watch = Watch()
        self._told = told
        self._trials = 0
        self.candidates: list[Candidate] = []
        self.held: dict[str, Score] = {}
        self.judged: dict[str, Finalist] = {}
        self.rungs: list[Mapping[str, Any]] = []

    def run(self) -> SearchResult:
        """All steps, one after the other; what the journal has is not done again."""
        self._prepare()
        self._score_published()
        self._score_drawn()
        self._descend("descents", self._starts())
        self._judge("")
        for number in range(1, self.request.rounds + 1):
            starts = self._further(number)
            if not starts:
                self.warnings.append(f"round {number} found no further direction: nothing is refused any more")
                break
            if self.request.descents:
                self._descend(f"descents of round {number}", starts)
            self._judge(f" of round {number}")
        return self._result()

    # The steps.

    def _prepare(self) -> None:
        """The directions at all places, the texts, and what is made of them alone."""
        (made,) = self._stage("preparation", {"directions and texts": self._made}).values()
        self.places = Places.from_dict(made["places"])
        self.texts = MadeTexts.from_dict(made["texts"])
        self.found_at = made["found"]
        self.warnings: list[str] = list(made["warnings"])
        self.space = Space(places=self.places, embeddings=self.request.embeddings)

    # Made when they are first needed: a search that is done asks the model nothing when another point is picked.

    @cached_property
    def scorer(self) -> Scorer:
        """Of the training texts."""
        return Scorer(self.model, self.texts.training, tokens=self.request.tokens, batch_size=self.batch_size)

    @cached_property
    def validation(self) -> Scorer:
        """Of the validation texts."""
        return Scorer(self.model, self.texts.validation, tokens=self.request.tokens, batch_size=self.batch_size)

    @cached_property
    def sketcher(self) -> Scorer:
        """The sketch of the training texts."""
        return self.scorer.sketch()

    @cached_property
    def validation_sketch(self) -> Scorer:
        """The sketch of the validation texts."""
        return self.validation.sketch()

    def _made(self, keeper: Keeper) -> Mapping[str, Any]:
        """The unit that runs `find`, and has the model say what candidates are scored on."""
        finds = {}
        warnings: list[str] = []
        for name, request in self._finds().items():
            inputs = _inputs(request, self.model, self.chat)
            place = self.found if name == MAIN and self.found is not None else self.output.find(name)
            kept = open_search(place, inputs, resume=True, overwrite=True)
            directions = find_requested(request, self.model, self.chat, batch_size=self.batch_size, scores=kept)
            assert kept.searched is not None
            finds[name] = (kept.searched, directions)
            warnings += directions.metadata["warnings"]
        places = Places.of(finds)
        # What nobody can draw need not be kept.
        places = places.within(*Space(places=places).reach)
        find = self.request.find
        texts = made_texts(
            self._speaker,
            SearchPrompts.of(find, self.request.over_refused),
            published(Space(places=places, embeddings=self.request.embeddings))[0],
            n_train=self.request.n_train,
            n_validation=self.request.n_validation,
            seed=find.seed,
            known_answers=self.request.known_answers,
            tokens=max(KEPT_TOKENS, self.request.tokens),
        )
        main = finds[MAIN][1].metadata
        return {
            "places": places.to_dict(),
            "texts": texts.to_dict(),
            "found": {key: main[key] for key in KEPT if key in main},
            "warnings": [*warnings, *texts.warnings],
        }

    def _finds(self) -> dict[str, FindRequest]:
        """The finds by name. Their bounds decide nothing here: damage is an objective of the search."""
        main = replace(self.request.find, best_effort=True)
        others = {
            name: replace(main, method=name, options=dict(options), confirm=None)
            for name, options in self.request.finders.items()
        }
        return {MAIN: main, **others}

    def _score_published(self) -> None:
        self.candidates += self._raced("published settings", published(self.space), racing=False)
        score = self.candidates[0].score
        assert score is not None
        if not score.is_finite:
            raise VerificationError(
                "under the plain ablation the model's probabilities are not finite: nothing to search"
            )
        self.unit = max(score.damage, SMALLEST_UNIT)

    def _score_drawn(self) -> None:
        """The sampler's generations, each drawn from all that is known."""
        generation = 0
        while self._trials < self.request.trials:
            told = [each.told for each in self.candidates]
            params = sampled(
                self.space,
                [each for each in told if each is not None],
                min(self.request.generation, self.request.trials - self._trials),
                seed=self.request.seed,
                generation=generation,
                sampler=self.request.sampler,
            )
            if not params:
                self.warnings.append(f"the sampler has drawn all there is: {self._trials} candidates")
                break
            points = [self.space.point(each) for each in params]
            self.candidates += self._raced(f"sampler {generation + 1}", points, racing=True)
            self._trials += len(points)
            generation += 1

    def _starts(self) -> list[tuple[Point, int]]:
        """Where descents begin, with the number of directions that each optimises; 0 leaves the start's."""
        points = {each.point.digest: each.point for each in self.candidates if not each.point.keep_norms}
        best = best_first(
            {digest: score for digest, score in scores_of(self.candidates).items() if digest in points}, self.unit
        )
        starts = [self.candidates[0].point, *(points[digest] for digest in best)]
        kinds = (self.options.directions, 0, min(1, self.options.directions))
        # The plain ablation first, then the best of all, two kinds of descent from each.
        return [
            (starts[min((number + 1) // 2, len(starts) - 1)], kinds[number % 3])
            for number in range(self.request.descents)
        ]

    def _descend(self, name: str, starts: Sequence[tuple[Point, int]]) -> None:
        units: dict[str, Unit] = {}
        for number, (start, directions) in enumerate(starts):
            options = self.options.model_copy(
                update={
                    "directions": max(directions, len(start.rows)) if directions else 0,
                    "seed": self.request.seed + number,
                }
            )
            settings = hashlib.sha256(options.model_dump_json().encode()).hexdigest()[:12]
            units[f"{start.digest} {settings}"] = partial(self._descent, start, options)
        for found in self._stage(name, units).values():
            for each in map(PricedPoint.from_dict, found["points"]):
                self.candidates.append(Candidate(point=each.point, score=each.score))

    def _descent(self, start: Point, options: DescentOptions, keeper: Keeper) -> Mapping[str, Any]:
        points = descend(
            self.scorer,
            start,
            options,
            unit=self.unit,
            refusals=self._still_refused,
            keep=keeper.keep,
            state=keeper.state,
        )
        return {"points": [each.to_dict() for each in points]}

    def _still_refused(self, point: Point) -> list[Choice]:
        """What the model refuses of the training prompts in spite of an edit, in its words."""
        found = new_refusals(self._speaker, point, self.texts.training.refused)
        return [each for each in found if each is not None]

    def _judge(self, of_round: str) -> None:
        """Have many candidates judged at the first length, and finalists among them at all lengths."""
        lengths = self.request.lengths
        held = self._held_out(f"held-out scores{of_round}", contenders(self.candidates, self.request.judged))
        self.held |= held
        chosen = to_judge(self.candidates, held, self.request.judged)
        self._have_judged(f"judging{of_round}", [each.point.digest for each in chosen], lengths[0])
        if len(lengths) > 1:
            best = front([each.judged.front_point(each.validation.damage, lengths[0]) for each in self.judged.values()])
            # The plain ablation stands beside them for comparison.
            digests = [self.candidates[0].point.digest, *finalists(best, self.request.finalists)]
            self._have_judged(f"finalists{of_round}", list(dict.fromkeys(digests)), lengths[-1])

    def _held_out(self, name: str, candidates: Sequence[Candidate]) -> dict[str, Score]:
        """By digest, the cheap scores of candidates on validation prompts."""
        parts = [candidates[at : at + TOGETHER] for at in range(0, len(candidates), TOGETHER)]
        units: dict[str, Unit] = {
            " ".join(each.point.digest for each in part): partial(
                self._validation_scores, [each.point for each in part]
            )
            for part in parts
        }
        results = [each["scores"] for each in self._stage(name, units).values()]
        return {digest: Score.from_dict(score) for scores in results for digest, score in scores.items()}

    def _validation_scores(self, points: Sequence[Point], keeper: Keeper) -> Mapping[str, Any]:
        scores = zip(points, self.validation.scores(points), strict=True)
        return {"scores": {point.digest: score.to_dict() for point, score in scores}}

    def _have_judged(self, name: str, digests: Sequence[str], tokens: int) -> None:
        """Have candidates judged that were not yet, at so many tokens; `judged` has the longest answers of each."""
        known = {each.point.digest: each for each in reversed(self.candidates)}
        left = [digest for digest in digests if digest not in self.judged or self.judged[digest].tokens < tokens]
        units: dict[str, Unit] = {
            f"{digest} {tokens}": partial(self._judgement, known[digest].point, tokens) for digest in left
        }
        for digest, result in zip(left, self._stage(name, units).values(), strict=True):
            validation = Score.from_dict(result["validation"])
            if validation.is_finite:
                self.judged[digest] = Finalist(
                    point=known[digest].point,
                    training=known[digest].score,
                    validation=validation,
                    sketch=Score.from_dict(result["sketch"]),
                    judged=JudgedPoint.from_dict(result["judged"]),
                )

    def _judgement(self, point: Point, tokens: int, keeper: Keeper) -> Mapping[str, Any]:
        """The unit that has a point answer validation prompts, and scores it cheaply on the same."""
        # What is known is not asked again: of contenders the score, of those judged at fewer tokens both.
        earlier = self.judged.get(point.digest)
        score = self.held.get(point.digest) if earlier is None else earlier.validation
        if score is None:
            (score,) = self.validation.scores([point])
        (sketch,) = self.validation_sketch.scores([point]) if earlier is None else (earlier.sketch,)
        prompts = judged_sets(self.texts.validation)
        if tokens < self.request.lengths[-1]:
            # What becomes of ordinary prompts is told by the divergence, until few points are left.
            del prompts[ORDINARY]
        (said,) = judged_points(
            self.model,
            self.chat,
            self.request.find.spec,
            [point],
            prompts,
            tokens=tokens,
            lengths=self.request.lengths,
            batch_size=self.batch_size,
            description=None,
        )
        values = {"values": list(said.front_point(score.damage).objectives)} if score.is_finite else {}
        return {"validation": score.to_dict(), "sketch": sketch.to_dict(), "judged": said.to_dict(), **values}

    def _further(self, number: int) -> list[tuple[Point, int]]:
        """Where the descents of a round begin: the finalist that refuses least, with a further direction."""
        digest = PickRule.parse("refusal<=0")(front([each.place for each in self._finalists])).point.digest
        point = self.judged[digest].point
        (made,) = self._stage(f"round {number}", {digest: partial(self._mined, point)}).values()
        if made["point"] is None:
            return []
        candidate = Candidate.from_dict(made["point"])
        self.candidates.append(candidate)
        return [(candidate.point, len(candidate.point.rows)), (candidate.point, 0)]

    def _mined(self, point: Point, keeper: Keeper) -> Mapping[str, Any]:
        """The unit that mines a further direction from what a point still refuses."""
        refused = self._still_refused(point)
        points = (
            further_points(
                self.model,
                point,
                [each.asked for each in refused],
                [each.prompt for each in self.texts.training.ordinary],
                range(1, self.model.anatomy.n_layers),
                batch_size=self.batch_size,
            )
            if refused and not point.keep_norms
            else []
        )
        if not points:
            return {"point": None}
        scores = {point.digest: score for point, score in zip(points, self.scorer.scores(points), strict=True)}
        best = best_first({digest: each for digest, each in scores.items() if each.is_finite}, self.unit)[0]
        chosen = next(each for each in points if each.digest == best)
        return {"point": Candidate(point=chosen, score=scores[best]).to_dict()}

    # What they have in common.

    def _raced(self, name: str, points: Sequence[Point], *, racing: bool) -> list[Candidate]:
        """Points with their cheap scores on training prompts."""
        sketches = sketches_of(self.candidates)
        best = {digest: sketches[digest] for digest in on_front(sketches)} if racing else {}
        parts = [points[at : at + TOGETHER] for at in range(0, len(points), TOGETHER)]
        units: dict[str, Unit] = {
            " ".join(each.digest for each in part): partial(self._race, part, best, racing) for part in parts
        }
        results = list(self._stage(name, units).values())
        self.rungs += [rung for result in results for rung in result["rungs"]]
        return [Candidate.from_dict(each) for result in results for each in result["candidates"]]

    def _race(
        self, points: Sequence[Point], best: Mapping[str, Score], racing: bool, keeper: Keeper
    ) -> Mapping[str, Any]:
        """The unit that sketches some points, and scores those whose sketch none beats; all where none races."""
        began = time.monotonic()
        texts = self.texts.training
        whole = max(map(len, (texts.refused, texts.ordinary, texts.over_refused)))
        raced = race(self.sketcher, points, best, first=FIRST if racing else max(FIRST, whole))
        sound = {digest: score for digest, score in raced.scores.items() if score.is_finite}
        ahead = set(on_front({**best, **sound})) if racing else raced.scores.keys()
        winners = [each for each in points if each.digest in ahead]
        scores = dict(zip((each.digest for each in winners), self.scorer.scores(winners), strict=True))
        self.watch.trials(len(points), time.monotonic() - began)
        found = []
        for point in points:
            drop = raced.dropped.get(point.digest)
            found.append(
                Candidate(
                    point=point,
                    score=scores.get(point.digest),
                    sketch=raced.scores[point.digest] if drop is None else drop.score,
                    raced=drop is None,
                ).to_dict()
            )
        return {"candidates": found, "rungs": [rung.to_dict() for rung in raced.rungs]}

    def _stage(self, name: str, units: Mapping[str, Unit]) -> dict[str, dict[str, Any]]:
        """The journal's results of some units, with progress told."""
        began = self.watch.seconds

        def tell(done: int, total: int, unit: str, result: Mapping[str, Any]) -> None:
            self._tell(name, done, total)

        self.journal.told = tell
        self._tell(name, 0, len(units))
        results = self.journal.stage(name, units)
        self.watch.spent[name] = self.watch.spent.get(name, 0.0) + self.watch.seconds - began
        return results

    def _tell(self, step: str, done: int, total: int) -> None:
        if self._told is None:
            return
        judged = [each.place for each in self.judged.values()]
        # Of a generation under way, what is done of it.
        drawn = min(done * TOGETHER, self.request.trials - self._trials) if step.startswith("sampler") else 0
        self._told(
            Progress(
                step=step,
                done=done,
                total=total,
                candidates=len(self.candidates),
                trials=(self._trials + drawn, self.request.trials),
                front=front(judged) if judged else self._cheap_front(),
                judged=bool(judged),
                seconds=self.watch.seconds,
                seconds_per_trial=self.watch.seconds_per_trial,
            )
        )

    def _cheap_front(self) -> list[FrontPoint]:
        scores = scores_of(self.candidates)
        return [place(digest, scores[digest]) for digest in on_front(scores)]

    @property
    def _speaker(self) -> Speaker:
        return Speaker(
            model=self.model,
            chat=self.chat,
            judge=self.request.find.spec,
            max_new_tokens=self.request.lengths[0],
            batch_size=self.batch_size,
        )

    @property
    def _finalists(self) -> list[Finalist]:
        """What was judged at the last length, in all rounds."""
        return [each for each in self.judged.values() if each.tokens == self.request.lengths[-1]]

    def _save(self, point: Point, path: Path) -> None:
        title = f"{self.recipe.get('title') or 'search'}: point {point.digest}"
        save_point(point, path, self.recipe, title=title, facts=self.found_at)

    def _result(self) -> SearchResult:
        """The front with its recipes, and the point that is picked."""
        best = front([each.place for each in self._finalists])
        names = {each.digest: f"{number:02d}-{each.digest}.yaml" for number, each in enumerate(best, 1)}
        plain = self.judged[self.candidates[0].point.digest]
        names.setdefault(plain.point.digest, f"plain-{plain.point.digest}.yaml")
        paths = self.output.write_points(
            {name: partial(self._save, self.judged[digest].point) for digest, name in names.items()}
        )
        rule = PickRule.parse(self.request.pick)
        wrong: UsageError | None = None
        try:
            picked = rule(best)
        except UsageError as error:
            # A number that there is not: what was found is written all the same.
            wrong, picked = error, PickRule.parse(DEFAULT_PICK)(best)
        judged = [
            replace(each, recipe=paths[names[digest]] if digest in names else None)
            for digest, each in self.judged.items()
        ]
        by_digest = {each.point.digest: each for each in judged}
        kept = tuple(by_digest[each.digest] for each in best)
        rates = [each.judged.sets[REFUSED].refusal(self.request.lengths[0]).value for each in judged]
        result = SearchResult(
            path=self.output.path,
            front=kept,
            picked=picked,
            plain=by_digest[plain.point.digest],
            others=tuple(each for each in judged if each not in kept),
            tau=kendall([each.validation.refusal for each in judged], rates),
            sketch_tau=kendall([each.sketch.refusal for each in judged], rates),
            candidates=self.candidates,
            facts={
                "found": self.found_at,
                "texts": [each.to_dict() for each in self.texts.facts],
                "unit": self.unit,
                "request": self.request.key,
                "costs": {"rungs": _added(self.rungs)},
            },
            warnings=tuple(self.warnings),
            seconds=dict(self.watch.spent),
        )
        self.output.write({"status": "done", "extent": self.request.extent, **result.to_dict()})
        if wrong is not None:
            raise wrong
        return result
