"""The search for directions: draw prompts, compute candidates, score, choose and record."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.choice import chosen, rule_for, taken
from weight_edit.directions.directions import Directions
from weight_edit.directions.find_folder import Metering, Searched, SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.finders.random_control import random_rows
from weight_edit.directions.loud import Deviations
from weight_edit.directions.measuring import measured
from weight_edit.directions.names import check_positions
from weight_edit.directions.problem import Problem
from weight_edit.directions.refusal_metric import find_refusal_tokens, refusal_metric, token_ids
from weight_edit.directions.registry import Finder, finder_named
from weight_edit.directions.samples import Sample, check_distinct, draw
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import RELEASED, SelectionRule
from weight_edit.directions.separation import Separation, separation
from weight_edit.errors import UsageError
from weight_edit.prompts.chat import SENTINELS, ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.loading import Model, loaded
from weight_edit.runtime.overflow import check_logprobs
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
    filter_prompts: bool = True,
    best_effort: bool = False,
    seed: int = 0,
    batch_size: int = 32,
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
        rule: bounds on candidates, and by what the best of them is chosen: by "cosmic" or
            "cosmic-released" no refusal tokens are needed,
            and prompts are not filtered. The bound on what adding induces is lifted for methods that are not to induce.
        filter_prompts: drop target prompts that the model is more likely to answer and baseline prompts that
            it is more likely to refuse, by their first token.
        best_effort: when no candidate keeps all bounds, take the one that misses them least, and say so in
            the metadata (`best_effort`, `missed`).
        seed: draws the prompts, and whatever the method draws.
        scores: a folder for what is found as it comes, candidates and their scores; kept nowhere when None.
        resume: go on with what an earlier search of the same inputs left there. Where it is complete nothing is run,
            so that a choice by other bounds costs nothing.
        overwrite: begin anew, whatever an earlier search left there. With `resume`: only where its inputs were others.

    Returns:
        Unit directions, all candidates where there is one for each place, in `tensors` what else edits need, and in
        `metadata` the scores of every candidate with the reason why it was rejected, those of a random direction of the
        same length at the chosen place (`control`), and `warnings` to show to the user.

    Raises:
        UsageError: too few prompts, too few left after filtering, an unknown method, option or token, no chat
            template.
        UnsupportedError: no candidate keeps the bounds; with the number that misses each, and in `details` the table
            of candidates, the best first.
    """
    check_seed(seed)
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
        filter_prompts=filter_prompts,
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
    batch_size: int = 32,
    scores: str | Path | SearchFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Directions:
    """The directions that a request asks for; the other arguments and the errors are those of `find_directions`."""
    finder = finder_named(request.method)
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
            kept = SearchFolder.open(scores, asked, resume=resume, overwrite=overwrite)
    layers = rule.layers(model.anatomy.n_layers)
    if kept.complete(layers, rule.without_tokens):
        return chosen(kept, rule, best_effort=request.best_effort)

    warnings: list[str] = []
    samples = _drawn(request, chat_format, warnings.append)
    metering = kept.metering
    if not rule.without_tokens and metering is None:
        metering = metered(
            model,
            samples.asked,
            refusal_tokens=request.refusal_tokens,
            filter_prompts=request.filter_prompts,
            opening=chat_format.opening,
            batch_size=batch_size,
        )
    if metering is not None:
        if request.filter_prompts:
            *targets, baseline = filtered(metering, samples.asked)
            samples = replace(samples, targets=tuple(targets), baseline=baseline)
        if kept.metering is None:
            # Not before enough prompts count: a search that is refused leaves nothing that the next one trips over.
            kept.note_metering(metering)
    problem = Problem(
        model=model,
        targets=samples.targets,
        baseline=samples.baseline,
        protected=samples.protected,
        positions=places,
        layers=tuple(range(model.anatomy.n_layers)),
        allowed=layers,
        tokens=() if metering is None else metering.tokens,
        seed=request.seed,
        batch_size=batch_size,
        warn=warnings.append,
        format=chat_format,
    )
    if kept.searched is None:
        candidates = finder(problem, request.options)
        facts = _record(problem, finder, request, chat_format, kept.metering)
        kept.note_searched(_searched(problem, candidates, facts, warnings))
    assert kept.searched is not None
    candidates = list(kept.searched.candidates)
    measured(
        problem,
        candidates,
        similarity=rule.without_tokens,
        released=rule.select == RELEASED,
        layers=layers,
        kept=kept,
    )
    table = kept.table(layers)
    best = taken(table, rule, model.anatomy.n_layers)
    if best is not None:
        # Also where none keeps the bounds: a choice by other bounds needs it, and no model then.
        kept.note_control(_control(problem, candidates[table.index(best)]))
    return chosen(kept, rule, best_effort=request.best_effort)


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
        "select": rule.select if rule.without_tokens else "with refusal tokens",
        # The methods that look only where may be chosen find something else elsewhere.
        "max_layer_fraction": None if finder.everywhere else rule.max_layer_fraction,
        "filter_prompts": request.filter_prompts,
        "seed": request.seed,
    }


def model_digest(model: Model) -> str:
    """A digest of the model's file names, sizes and times, or without files, of its weights."""
    if (model.source.path / "config.json").is_file():
        return fingerprint(model.source.path)
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
    problem: Problem, finder: Finder, request: FindRequest, chat_format: ChatFormat, metering: Metering | None
) -> dict[str, Any]:
    """The metadata known before scoring: the method, the model, prompts and tokens."""
    targets, tokenizer = problem.targets, problem.model.tokenizer
    places = problem.positions
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
        "filter_prompts": request.filter_prompts and bool(problem.tokens),
        "chat": {
            "system": chat_format.system,
            "template": chat_format.template,
            "template_args": chat_format.template_args,
            **({} if chat_format.thinking is None else {"thinking": chat_format.thinking}),
            "opening": str(tokenizer.decode(list(chat_format.opening))),
        },
        "seed": problem.seed,
        "refusal_tokens": [{"id": token, "text": str(tokenizer.decode([token]))} for token in problem.tokens],
        "refusal_metric": None if metering is None else dict(metering.means),
        "versions": {
            "weight_edit": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


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


def metered(
    model: Model,
    samples: Sequence[Sample],
    refusal_tokens: Sequence[int | str] | None,
    filter_prompts: bool,
    opening: Sequence[int],
    batch_size: int,
) -> Metering:
    """The refusal metric of all prompts, and which of them count.

    A target prompt counts if the model refuses it, a baseline prompt if the model answers it.

    Args:
        samples: targets, and the baseline last.
        refusal_tokens: ids or words; found from the training prompts when None.
        filter_prompts: whether the others are left out; if not, every prompt counts.
        opening: what comes before an answer's text: what tells refusals from answers is the token behind it.
    """
    asked = [some for sample in samples for some in (sample.train, sample.validation)]
    prompts = [[[*ids, *opening] for ids in some] for some in asked]
    together = [ids for some in prompts for ids in some]
    logprobs = list(
        next_token_logprobs(model, together, batch_size=batch_size, description="first tokens").split(
            [len(some) for some in prompts]
        )
    )
    for some, values in zip(prompts, logprobs, strict=True):
        check_logprobs(model, some, values)
    if refusal_tokens is None:
        tokens = find_refusal_tokens(torch.cat(logprobs[:-2:2]), logprobs[-2])
    else:
        tokens = token_ids(refusal_tokens, model.tokenizer)
    metrics = [refusal_metric(values, tokens) for values in logprobs]
    marks = [*(metric > 0 for metric in metrics[:-2]), *(metric < 0 for metric in metrics[-2:])]
    used = [metric[keep] if filter_prompts else metric for metric, keep in zip(metrics, marks, strict=True)]
    keep = [tuple(some.tolist()) for some in marks]
    return Metering(
        tuple(tokens),
        tuple(zip(keep[::2], keep[1::2], strict=True)),
        {"target": float(torch.cat(used[1:-2:2]).mean()), "baseline": float(used[-1].mean())},
    )


def filtered(metering: Metering, samples: Sequence[Sample]) -> list[Sample]:
    """The samples without the prompts that do not count.

    Raises:
        UsageError: too few are left of one.
    """
    does = ["refuses"] * (len(samples) - 1) + ["answers"]
    pairs = zip(samples, metering.keep, does, strict=True)
    return [sample.keep(train, held, what) for sample, (train, held), what in pairs]


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


def _control(problem: Problem, found: Candidate) -> CandidateScore:
    """The scores of random directions, as many and as long, at the same place."""
    rows = random_rows(max(1, found.rank), problem.width, problem.seed)
    vector = None if found.vector is None else rows[0] * float(found.vector.norm())
    return measured(
        problem,
        [Candidate(position=found.position, layer=found.layer, rows=rows, vector=vector)],
        what="random control",
    )[0]
