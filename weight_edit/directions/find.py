"""The search for directions: draw prompts, compute candidates, score, choose and record."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.choice import Choice, chosen, is_made, rule_for
from weight_edit.directions.confirmation import confirm_candidates
from weight_edit.directions.directions import Directions
from weight_edit.directions.find_folder import Metering, Searched, SearchFolder
from weight_edit.directions.find_request import FindRequest, check_batch_size
from weight_edit.directions.finders.random_control import random_rows
from weight_edit.directions.judged_answers import SampleAnswers, Speaker
from weight_edit.directions.loud import Deviations
from weight_edit.directions.measuring import Measuring, measured
from weight_edit.directions.metering import Filter, Meter, Streams, filtered, metered, more_kept, with_more_prompts
from weight_edit.directions.names import check_positions
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import Finder, finder_named
from weight_edit.directions.samples import Sample, check_distinct, draw
from weight_edit.directions.scores import SCORES, CandidateScore
from weight_edit.directions.selection import RELEASED, SelectionRule
from weight_edit.directions.separation import Separation, separation
from weight_edit.directions.shared_search import open_search
from weight_edit.errors import OutOfMemoryError, UsageError
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec
from weight_edit.prompts.chat import SENTINELS, ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model, loaded
from weight_edit.runtime.processes import agreed, facts
from weight_edit.utils.renamed import renamed_arguments
from weight_edit.utils.seeds import check_seed
from weight_edit.version import __version__

Prompts = PromptSet | str | Path


@renamed_arguments(format="chat_format")
def find_directions(
    model: Model | str | Path,
    target: Prompts | Sequence[Prompts],
    baseline: Prompts,
    *,
    protect: Prompts | Sequence[Prompts] = (),
    validation_target: Prompts | Sequence[Prompts] | None = None,
    validation_baseline: Prompts | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    chat_format: ChatFormat | None = None,
    method: str = "mean-difference",
    options: Mapping[str, Any] | None = None,
    positions: str = "template",
    refusal_tokens: Sequence[int | str] | None = None,
    rule: SelectionRule | None = None,
    tokens_from: str = "answers",
    filter_prompts: str | bool = "auto",
    judge: str | JudgeSpec = DEFAULT_JUDGES[0],
    n_answers: int = 32,
    max_new_tokens: int = 32,
    n_more: int | None = None,
    confirm: int | None = None,
    confirm_by: str = "ablate",
    best_effort: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    scores: str | Path | SearchFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Directions:
    """Find the directions that tell `target` from `baseline` prompts in the residual stream.

    The settings of arXiv 2406.11717 are the defaults. Candidates are scored under the ablation that `bake`
    would write into the weights; a tied unembedding stays as it is for that, as in the paper.

    Args:
        model: from `load`, or what `load` takes.
        target: prompts that show the behaviour (refused ones), or several sets of them; baseline: prompts that do not.
            A set, here and below, may be given as what `load_prompts` takes.
        protect: sets of prompts whose handling should stay: the methods that can spare them do, and of every method the
            candidates that change it much are rejected.
        validation_target, validation_baseline: for the scores; without them, parts of the sets above are kept
            back. Of several targets, one for each.
        n_train, n_validation: how many of each set are drawn; smaller sets are split four to one.
        chat_format: how prompts become tokens; the tokenizer's chat template when None.
        method: name of a finder, or an alias of it; the name is recorded.
        options: its settings.
        positions: where prompts are looked at: "template", every position after the instruction; "last"; or "all", the
            mean over all tokens.
        refusal_tokens: ids or words; found from the training prompts when None.
        rule: bounds on candidates, and by what the best of them is chosen: by "cosmic" or "cosmic-released" no refusal
            tokens are needed. The bound on what adding induces is lifted for methods that are not to induce.
        tokens_from: where refusal tokens come from where none are given: "answers", those that open the model's
            refusals and not other answers, as a judge hears them; or "difference", the first tokens that target prompts
            make more probable, whatever they open, for a behaviour other than refusal.
        filter_prompts: which prompts are left out: "answers", target prompts that are not refused and baseline prompts
            that are, by judged answers; "first-token", target prompts whose first token is less likely than not a
            refusal token, and baseline prompts where it is more; "none". "auto" is "answers" where the tokens are from
            them, "first-token" where they are given or from the difference, and "none" where none are needed. Earlier
            versions took True for "first-token" and False for "none".
        judge: who reads the answers, as `evaluate` takes judges.
        n_answers: training prompts of each set that are answered for the tokens, and again as many of the targets until
            ten refusals were heard; where prompts are filtered by answers, all are.
        max_new_tokens: the length of these answers, at most. A thinking model's thought has to fit in.
        n_more: candidates that cannot be told from the best, or whose bounds cannot be told, are measured on up to so
            many more prompts of each set, those that were not drawn; as many as `n_train`, 64 at most, when None; 0
            measures no more.
        confirm: have the model answer so many validation prompts under the edits of the chosen candidate and of the two
            next best; the next that moves refusal is taken where the chosen one does not.
        confirm_by: the edit: "ablate", on target prompts, which should lower refusal, or "add", the difference at its
            layer on baseline prompts, which should raise it.
        best_effort: when no candidate keeps all bounds, take the one that misses them least, and say so in
            the metadata (`best_effort`, `missed`); when answers tell no refusal tokens, take those from the difference,
            with a warning.
        seed: draws the prompts, and whatever the method draws.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        scores: a folder for what is found as it comes, candidates and their scores; kept nowhere when None.
        resume: go on with what an earlier search of the same inputs left there. Where it has what the choice needs,
            nothing is run: tighter bounds cost nothing, looser ones the scores that were not measured.
        overwrite: begin anew, whatever an earlier search left there. With `resume`: only where its inputs were others.

    Returns:
        Unit directions, all candidates where there is one for each place, in `tensors` what else edits need, and in
        `metadata` the scores of every candidate with the reason why it was rejected, those of a random direction of the
        same length at the chosen place (`control`), and `warnings` to show to the user.

    Raises:
        UsageError: too few prompts, too few left after filtering, an unknown method, option or token, no chat
            template; or answers that tell no refusal tokens, since target prompts are not refused more often than
            baseline prompts or the model thinks first.
        UnsupportedError: no candidate keeps the bounds; with the number that misses each, and in `details` the table
            of candidates, the best first.
    """
    check_seed(seed)
    check_batch_size(batch_size)
    finder = finder_named(method)
    finder.settings(options or {})
    # What is wrong with the prompts is said before a large model is loaded.
    targets, spares, held = _listed(target), _listed(protect), _listed(validation_target)
    if held and len(held) != len(targets):
        raise UsageError(f"{len(targets)} target sets need as many validation sets, not {len(held)}")
    request = FindRequest(
        target=targets,
        baseline=load_prompts(baseline),
        protect=spares,
        validation_target=held,
        validation_baseline=None if validation_baseline is None else load_prompts(validation_baseline),
        n_train=n_train,
        n_validation=n_validation,
        method=method,
        options=options or {},
        positions=positions,
        refusal_tokens=refusal_tokens,
        rule=rule_for(finder, rule),
        tokens_from=tokens_from,
        filter_prompts=filter_prompts,
        judge=judge,
        n_answers=n_answers,
        max_new_tokens=max_new_tokens,
        n_more=n_more,
        confirm=confirm,
        confirm_by=confirm_by,
        best_effort=best_effort,
        seed=seed,
    )
    return find_requested(
        request,
        loaded(model),
        chat_format,
        batch_size=batch_size,
        scores=scores,
        resume=resume,
        overwrite=overwrite,
    )


def find_requested(
    request: FindRequest,
    model: Model,
    chat_format: ChatFormat | None = None,
    *,
    batch_size: int | None = None,
    scores: str | Path | SearchFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Directions:
    """The directions that a request asks for; the other arguments and the errors are those of `find_directions`."""
    finder = finder_named(request.method)
    finder.check_offload(model.offload is not None)
    rule = rule_for(finder, request.rule)
    chat_format = ChatFormat(model.tokenizer) if chat_format is None else chat_format
    places = _positions(request.positions, len(chat_format.suffix))
    if isinstance(scores, SearchFolder):
        kept = scores
    else:
        asked = search_inputs(
            request,
            model=model_digest(model),
            dtype=str(model.dtype).removeprefix("torch."),
            chat_format=[list(chat_format.encode(prompt)) for prompt in SENTINELS[:2]],
        )
        kept = SearchFolder(path=None, inputs=asked)
        if scores is not None:
            kept = open_search(scores, asked, resume=resume, overwrite=overwrite)
    if is_made(kept, rule, request):
        return chosen(kept, rule, request)

    warnings: list[str] = []
    drawn = _drawn(request, chat_format, warnings.append)
    problem = Problem(
        model=model,
        targets=drawn.targets,
        baseline=drawn.baseline,
        protected=drawn.protected,
        positions=places,
        layers=tuple(range(model.anatomy.n_layers)),
        allowed=rule.layers(model.anatomy.n_layers),
        tokens=(),
        seed=request.seed,
        batch_size=batch_size,
        warn=warnings.append,
        format=chat_format,
    )
    meter = _meter(problem, drawn, request, chat_format, kept)
    with_tokens = not rule.without_tokens
    if kept.metering is not None or with_tokens or meter.filter != "none":
        metering, problem = _metered(meter, problem, request, kept, with_tokens=with_tokens)
        warnings += metering.warnings
    if kept.searched is None:
        candidates = agreed(finder(problem, request.options), "candidates")
        known = _record(problem, finder, request, chat_format, metering=kept.metering, filter_by=meter.filter)
        undrawn = {"target": min(sample.undrawn for sample in drawn.targets), "baseline": drawn.baseline.undrawn}
        searched = _searched(problem, candidates, {**known, "undrawn": undrawn}, warnings)
        kept.note_searched(agreed(searched, "what the method found"))
        problem.known.clear()
    measuring = Measuring(problem, released=rule.select == RELEASED)
    _score(measuring, drawn, meter, kept=kept, rule=rule, request=request)
    choice = Choice(kept, request, rule)
    if choice.to_confirm and choice.confirmation is None:
        confirm_candidates(kept, choice.to_confirm, problem, request)
    if choice.number is not None:
        # Also where none keeps the bounds: a choice by other bounds needs it, and no model then.
        kept.note_control(_control(measuring, choice.searched.candidates[choice.number]))
    found = chosen(kept, rule, request)
    found.metadata.update(facts())
    return found


def _meter(
    problem: Problem, drawn: "_Samples", request: FindRequest, chat_format: ChatFormat, kept: SearchFolder
) -> Meter:
    """The model with the answers that it gave, and the filter that is asked for."""
    model = problem.model
    speaker = Speaker(model=model, chat=chat_format, judge=request.spec, max_new_tokens=request.max_new_tokens)
    rule = rule_for(finder_named(request.method), request.rule)
    return Meter(
        model=model,
        opening=chat_format.opening,
        batch_size=problem.batch_size,
        answers=SampleAnswers(drawn.asked, speaker, kept.answers, kept.note_answers, request.seed),
        filter=cast(Filter, request.filter(rule.without_tokens)),
        streams=_streams(problem) if kept.searched is None else None,
    )


def _streams(problem: Problem) -> Streams | None:
    """Where the stream is to be read along with first tokens; None where means over all tokens are asked for."""
    positions = [position for position in problem.positions if position is not None]
    if len(positions) < len(problem.positions):
        return None
    return Streams(layers=problem.layers, positions=positions, known=problem.known)


def _metered(
    meter: Meter, problem: Problem, request: FindRequest, kept: SearchFolder, *, with_tokens: bool
) -> tuple[Metering, Problem]:
    """The refusal tokens and which prompts count, and the problem with these."""
    metering = kept.metering
    try:
        if metering is None:
            metering = metered(
                meter,
                refusal_tokens=request.refusal_tokens,
                tokens_from=request.tokens_from,
                n_answers=request.n_answers,
                with_tokens=with_tokens,
                best_effort=request.best_effort,
            )
        if meter.filter != "none":
            *targets, baseline = filtered(metering, meter.answers)
            problem = replace(problem, targets=tuple(targets), baseline=baseline)
    except OutOfMemoryError:
        # What the model answered so far is worth going on with, in smaller batches or on another machine.
        raise
    except UsageError:
        # A search that is refused leaves nothing that the next one trips over.
        kept.discard()
        raise
    if kept.metering is None:
        kept.note_metering(metering)
    return metering, replace(problem, tokens=metering.tokens)


def _score(
    measuring: Measuring,
    drawn: "_Samples",
    meter: Meter,
    *,
    kept: SearchFolder,
    rule: SelectionRule,
    request: FindRequest,
) -> None:
    """Measure what the choice needs stage by stage, and what cannot be told apart on more prompts."""
    assert kept.searched is not None
    candidates = list(kept.searched.candidates)
    further: Measuring | None = None
    while True:
        choice = Choice(kept, request, rule)
        stage = choice.needed or choice.lacking
        if stage is not None:
            measuring.run(stage, candidates, kept.note_scores, kept.note_similarity)
        elif choice.wanted:
            if further is None:
                further = Measuring(_on_more(measuring.problem, drawn, meter, kept))
            found = measured(
                further.problem,
                [candidates[number] for number in choice.wanted],
                what=f"{len(choice.wanted)} candidates on up to {request.more} more prompts of each set",
                measuring=further,
            )
            for number, score in zip(choice.wanted, found, strict=True):
                kept.note_more(request.more, number, {name: score.values.get(name, ()) for name in SCORES})
        else:
            return


def _on_more(problem: Problem, drawn: "_Samples", meter: Meter, kept: SearchFolder) -> Problem:
    """The problem whose validation prompts are those that were not drawn before, filtered as the others."""
    metering = kept.metering
    if metering is not None and meter.filter != "none" and metering.more is None:
        metering = replace(metering, more=more_kept(replace(meter, streams=None), metering))
        kept.note_metering(metering)
    *targets, baseline = with_more_prompts(drawn.asked, None if metering is None else metering.more)
    return replace(
        problem,
        targets=tuple(targets),
        baseline=baseline,
        protected=tuple(with_more_prompts(drawn.protected, None)),
    )


def search_inputs(request: FindRequest, *, model: str, dtype: str, chat_format: Any) -> dict[str, Any]:
    """All inputs of candidates and their scores, by name, as JSON values; not the bounds.

    Args:
        model: a digest of it.
        dtype: as asked for, or as it is.
        chat_format: what says how prompts become tokens.
    """
    finder = finder_named(request.method)
    rule = rule_for(finder, request.rule)
    held = request.validation_baseline

    filter_by = request.filter(rule.without_tokens)
    named_nowhere = request.refusal_tokens is None and not rule.without_tokens
    speaks = filter_by == "answers" or (named_nowhere and request.tokens_from == "answers")

    def digests(sets: Sequence[PromptSet]) -> list[str]:
        return [some.content_sha256 for some in sets]

    return {
        "weight_edit": __version__,
        "model": model,
        "dtype": dtype,
        "system prompt or template": chat_format,
        "target prompts": digests(request.target),
        "baseline prompts": digests([request.baseline]),
        "protected prompts": digests(request.protect),
        "validation prompts": [digests(request.validation_target), digests([] if held is None else [held])],
        "n_train": request.n_train,
        "n_validation": request.n_validation,
        "method": finder.name,
        "options": finder.settings(request.options).model_dump(mode="json"),
        "positions": request.positions,
        "refusal tokens": None if request.refusal_tokens is None else list(request.refusal_tokens),
        "tokens_from": request.tokens_from if named_nowhere else None,
        "judge": [request.spec.kind, dict(request.spec.options)] if speaks else None,
        "n_answers": request.n_answers if speaks and filter_by != "answers" else None,
        "max_new_tokens": request.max_new_tokens if speaks else None,
        "select": rule.select if rule.without_tokens else "with refusal tokens",
        # The methods that look only where may be chosen find something else elsewhere.
        "max_layer_fraction": None if finder.everywhere else rule.max_layer_fraction,
        "filter_prompts": filter_by,
        "seed": request.seed,
    }


def model_digest(model: Model) -> str:
    """A digest of the model's file names, sizes and times, or without files, of its weights."""
    path = model.source.path
    # The path of one that was put together in memory is that of any folder.
    if (path / "config.json").is_file() or (not model.source.in_memory and gguf_files(path) is not None):
        return fingerprint(path)
    digest = hashlib.sha256()
    for name, parameter in model.model.named_parameters():
        total = parameter.detach().double()
        digest.update(f"{name} {tuple(parameter.shape)} {float(total.sum())!r} {float(total.abs().sum())!r}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """The prompts that a search draws."""

    targets: tuple[Sample, ...]
    baseline: Sample
    protected: tuple[Sample, ...]

    @property
    def asked(self) -> list[Sample]:
        """Those that must be refused or answered: the targets, and the baseline last."""
        return [*self.targets, self.baseline]


def _drawn(request: FindRequest, chat_format: ChatFormat, warn: Callable[[str], None]) -> _Samples:
    """The training and validation prompts of a request.

    Raises:
        UsageError: too few prompts.
    """
    sizes: dict[str, Any] = {
        "n_train": request.n_train,
        "n_validation": request.n_validation,
        "n_more": request.more,
        "seed": request.seed,
        "warn": warn,
    }
    for some in request.target:
        check_distinct(some, request.baseline, warn)
    apart_of: Sequence[PromptSet | None] = request.validation_target or [None] * len(request.target)
    pairs = zip(request.target, apart_of, strict=True)
    return _Samples(
        targets=tuple(draw("target", some, apart, chat_format, **sizes) for some, apart in pairs),
        baseline=draw("baseline", request.baseline, request.validation_baseline, chat_format, **sizes),
        protected=tuple(draw("protected", some, None, chat_format, **sizes) for some in request.protect),
    )


def _record(
    problem: Problem,
    finder: Finder,
    request: FindRequest,
    chat_format: ChatFormat,
    *,
    metering: Metering | None,
    filter_by: str,
) -> dict[str, Any]:
    """The metadata known before scoring: the method, the model, prompts and tokens."""
    targets, tokenizer = problem.targets, problem.model.tokenizer
    places = problem.positions
    opens = () if metering is None else metering.opens
    speaks = filter_by == "answers" or bool(opens)
    return {
        "method": finder.name,
        **({"papers": list(finder.papers)} if finder.papers else {}),
        "options": finder.settings(request.options).model_dump(),
        "positions": list(places),
        "position_labels": list(chat_format.suffix_labels)[-len(places) :] if None not in places else ["all tokens"],
        "model": problem.model.source.name,
        "revision": problem.model.source.revision,
        "dtype": str(problem.model.dtype).removeprefix("torch."),
        "prompts": {
            "target": targets[0].to_dict() if len(targets) == 1 else [sample.to_dict() for sample in targets],
            "baseline": problem.baseline.to_dict(),
            **({"protected": [sample.to_dict() for sample in problem.protected]} if problem.protected else {}),
        },
        "filter_prompts": filter_by,
        "chat": {
            "system": chat_format.system,
            "template": chat_format.template,
            "template_args": chat_format.template_args,
            **({} if chat_format.thinking is None else {"thinking": chat_format.thinking}),
            "opening": str(tokenizer.decode(list(chat_format.opening))),
        },
        "seed": problem.seed,
        "refusal_tokens": [
            {"id": token, "text": str(tokenizer.decode([token])), **({"opens": dict(opens[number])} if opens else {})}
            for number, token in enumerate(problem.tokens)
        ],
        "tokens_from": _source(request, problem.tokens, bool(opens)),
        "answers": {
            "judge": str(request.spec),
            "max_new_tokens": request.max_new_tokens,
            **({} if metering is None else {name: dict(counts) for name, counts in metering.heard.items()}),
        }
        if speaks
        else None,
        "refusal_metric": None if metering is None else dict(metering.means),
        "versions": {
            "weight_edit": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _source(request: FindRequest, tokens: Sequence[int], opens: bool) -> str | None:
    """Where the refusal tokens are from; None where there are none."""
    if not tokens:
        return None
    if request.refusal_tokens is not None:
        return "given"
    return "answers" if opens else "difference"


def _searched(
    problem: Problem, candidates: Sequence[Candidate], facts: Mapping[str, Any], warnings: Sequence[str]
) -> Searched:
    """The method's candidates, the class means, and each candidate's separation."""
    target, baseline = problem.target(), problem.of(problem.baseline)
    held = problem.target("validation"), problem.of(problem.baseline, "validation")

    def apart(candidate: Candidate) -> Separation | None:
        placed = candidate.layer is not None and candidate.position in problem.positions
        if not placed or candidate.norm == 0.0 or not bool(candidate.rows.isfinite().all()):
            return None
        p, layer = problem.positions.index(candidate.position), problem.layers.index(candidate.layer or 0)
        streams = [x[:, p, layer] for x in (target, baseline, *held)]
        return separation(candidate, *streams) if all(bool(x.isfinite().all()) for x in streams) else None

    deviations = Deviations.of([target, baseline])
    loud = [deviations.at(layer, "nothing") for layer in deviations.loud.nonzero().flatten().tolist()]
    return Searched(
        candidates=candidates,
        separations=[apart(candidate) for candidate in candidates],
        target_mean=target.double().mean(dim=0),
        baseline_mean=baseline.double().mean(dim=0),
        positions=problem.positions,
        facts={**facts, "loud_layers": loud},
        warnings=tuple(warnings),
    )


def _positions(positions: str, template: int) -> tuple[int | None, ...]:
    check_positions(positions)
    known: dict[str, tuple[int | None, ...]] = {
        "template": tuple(range(-template, 0)),
        "last": (-1,),
        "all": (None,),
    }
    return known[positions]


def _listed(prompts: Prompts | Sequence[Prompts] | None) -> tuple[PromptSet, ...]:
    if prompts is None:
        return ()
    return tuple(load_prompts(some) for some in ([prompts] if isinstance(prompts, Prompts) else prompts))


def _control(measuring: Measuring, found: Candidate) -> CandidateScore:
    """The scores of random directions, as many and as long, at the same place."""
    problem = measuring.problem
    rows = random_rows(max(1, found.rank), problem.width, problem.seed)
    vector = None if found.vector is None else rows[0] * float(found.vector.norm())
    return measured(
        problem,
        [Candidate(position=found.position, layer=found.layer, rows=rows, vector=vector)],
        what="random control",
        measuring=measuring,
    )[0]
