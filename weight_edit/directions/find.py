"""Find directions: draw prompts, compute candidates, score them, choose one, and record all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from weight_edit.directions.ablating import ablation_hooks
from weight_edit.directions.artifact import Directions
from weight_edit.directions.candidate import Candidate, table_of
from weight_edit.directions.choices import check_positions
from weight_edit.directions.finders.random_control import random_rows
from weight_edit.directions.measuring import measured
from weight_edit.directions.problem import Problem
from weight_edit.directions.refusal_metric import find_refusal_tokens, refusal_metric, token_ids
from weight_edit.directions.registry import finder_named
from weight_edit.directions.samples import Sample, check_distinct, draw
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import NOT_FINITE, Selection, SelectionRule, least_bad, select
from weight_edit.directions.separation import separation
from weight_edit.edits import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.overflow import check_logprobs
from weight_edit.prompts import ChatFormat, PromptSet
from weight_edit.runtime import Model, next_token_logprobs
from weight_edit.version import __version__

__all__ = ["ablation_hooks", "find_directions"]

Positions = Literal["template", "last", "all"]


def find_directions(
    model: Model,
    target: PromptSet | Sequence[PromptSet],
    baseline: PromptSet,
    *,
    protect: Sequence[PromptSet] = (),
    validation_target: PromptSet | Sequence[PromptSet] | None = None,
    validation_baseline: PromptSet | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    format: ChatFormat | None = None,
    method: str = "mean-difference",
    options: Mapping[str, Any] | None = None,
    positions: str = "template",
    refusal_tokens: Sequence[int | str] | None = None,
    rule: SelectionRule | None = None,
    filter_prompts: bool = True,
    best_effort: bool = False,
    seed: int = 0,
    batch_size: int = 32,
) -> Directions:
    """Find the directions that carry what the model does on `target` prompts and not on `baseline` prompts.

    The settings of arXiv 2406.11717 are the defaults. Candidates are scored under the ablation that `bake`
    would write into the weights; a tied unembedding stays as it is for that, as in the paper.

    Args:
        model: from `load`.
        target: prompts that show the behaviour (refused ones), or several sets of them; baseline: prompts that do not.
        protect: sets of prompts whose handling should stay: the methods that can spare them do, and of every method the
            candidates that change it much are rejected.
        validation_target, validation_baseline: for the scores; without them, parts of the sets above are kept
            back. Of several targets, one for each.
        n_train, n_validation: how many of each set are drawn; smaller sets are split four to one.
        format: how prompts become tokens; the tokenizer's chat template when None.
        method: name of a finder.
        options: its settings.
        positions: where prompts are looked at: "template", every position after the instruction; "last"; or "all", the
            mean over all tokens.
        refusal_tokens: ids or words; found from the training prompts when None.
        rule: bounds on candidates, and by what the best of them is chosen: by "cosmic" no refusal tokens are needed,
            and prompts are not filtered. The bound on what adding induces is lifted for methods that are not to induce.
        filter_prompts: drop target prompts that the model is more likely to answer and baseline prompts that
            it is more likely to refuse, by their first token.
        best_effort: when no candidate keeps all bounds, take the one that misses them least, and say so in
            the metadata (`best_effort`, `missed`).
        seed: draws the prompts, and whatever the method draws.

    Returns:
        Unit directions, all candidates where there is one for each place, in `tensors` what else edits need, and in
        `metadata` the scores of every candidate with the reason why it was rejected, those of a random direction of the
        same length at the chosen place (`control`), and `warnings` to show to the user.

    Raises:
        UsageError: too few prompts, too few left after filtering, an unknown method, option or token, no chat
            template.
        UnsupportedError: no candidate keeps the bounds; with the number that misses each.
    """
    finder = finder_named(method)
    finder.settings(options or {})
    rule = SelectionRule() if rule is None else rule
    rule = rule if rule.by is not None else replace(rule, by=finder.select)
    rule = rule if finder.induces else replace(rule, min_induce=None)
    format = ChatFormat(model.tokenizer) if format is None else format
    places = _positions(positions, len(format.suffix))
    warnings: list[str] = []
    sizes: dict[str, Any] = {"n_train": n_train, "n_validation": n_validation, "seed": seed, "warn": warnings.append}

    targets = _listed(target)
    held = _listed(validation_target) or [None] * len(targets)
    if len(held) != len(targets):
        raise UsageError(f"{len(targets)} target sets need as many validation sets, not {len(held)}")
    for some in targets:
        check_distinct(some, baseline, warnings.append)
    refused = [draw("target", some, kept, format, **sizes) for some, kept in zip(targets, held, strict=True)]
    answered = draw("baseline", baseline, validation_baseline, format, **sizes)
    spared = tuple(draw("protected", some, None, format, **sizes) for some in protect)

    tokens: list[int] = []
    metrics: dict[str, float] | None = None
    if rule.by != "cosmic":
        metering = _Metering(model, refused, answered, refusal_tokens, format.opening, batch_size)
        tokens = metering.tokens
        if filter_prompts:
            refused, answered = metering.kept()
        metrics = metering.means(filter_prompts)

    problem = Problem(
        model,
        tuple(refused),
        answered,
        spared,
        places,
        tuple(range(model.anatomy.n_layers)),
        rule.layers(model.anatomy.n_layers),
        tuple(tokens),
        seed,
        batch_size,
        warnings.append,
        format,
    )
    candidates = finder(problem, options)
    scores = measured(problem, candidates, similarity=rule.by == "cosmic")
    selection = select(scores, rule, model.anatomy.n_layers)
    chosen = _chosen(scores, selection, rule, model, best_effort)
    missed = selection.rejections.get((chosen.position, chosen.layer))
    if missed:
        warnings.append(f"no candidate keeps all bounds; the least bad one was taken: {missed}")
    found = candidates[scores.index(chosen)]
    tensors, apart = _at_its_place(problem, found)
    if apart is not None:
        apart.complain(warnings.append)
    metadata = {
        "method": method,
        "options": finder.settings(options or {}).model_dump(),
        "layer": chosen.layer,
        "position": chosen.position,
        "positions": list(places),
        "position_labels": list(format.suffix_labels)[-len(places) :] if None not in places else ["all tokens"],
        "model": model.source.name,
        "revision": model.source.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": {
            "target": refused[0].to_dict() if len(refused) == 1 else [sample.to_dict() for sample in refused],
            "baseline": answered.to_dict(),
            **({"protected": [sample.to_dict() for sample in spared]} if spared else {}),
        },
        "filter_prompts": filter_prompts and bool(tokens),
        "chat": {
            "system": format.system,
            "template": format.template,
            "template_args": format.template_args,
            "opening": str(model.tokenizer.decode(list(format.opening))),
        },
        "seed": seed,
        "refusal_tokens": [{"id": token, "text": str(model.tokenizer.decode([token]))} for token in tokens],
        "refusal_metric": metrics,
        "rule": asdict(rule),
        "scores": _table(scores, selection),
        "control": _control(problem, found).to_dict(),
        "facts": dict(found.facts),
        "best_effort": bool(missed),
        "missed": missed,
        "separation": None if apart is None else apart.to_dict(),
        "warnings": warnings,
        "versions": {
            "weight_edit": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    rows = torch.from_numpy(orthonormal_rows(found.rows)).float()
    table = table_of(candidates, len(places), model.anatomy.n_layers, model.anatomy.d_model)
    return Directions(rows, table, metadata, {name: tensor.float() for name, tensor in tensors.items()})


class _Metering:
    """The refusal metric of training and validation prompts, and which of them the model treats as said."""

    def __init__(
        self,
        model: Model,
        refused: Sequence[Sample],
        answered: Sample,
        refusal_tokens: Sequence[int | str] | None,
        opening: Sequence[int],
        batch_size: int,
    ) -> None:
        self._samples = [*refused, answered]
        # Where answers open with special tokens, what tells refusals from them is the token behind these.
        asked = [
            [[*prompt, *opening] for prompt in prompts]
            for sample in self._samples
            for prompts in (sample.train, sample.validation)
        ]
        logprobs = [
            next_token_logprobs(model, prompts, batch_size=batch_size, description="first tokens") for prompts in asked
        ]
        for prompts, values in zip(asked, logprobs, strict=True):
            check_logprobs(model, prompts, values)
        if refusal_tokens is None:
            self.tokens = find_refusal_tokens(torch.cat(logprobs[:-2:2]), logprobs[-2])
        else:
            self.tokens = token_ids(refusal_tokens, model.tokenizer)
        self._metrics = [refusal_metric(values, self.tokens) for values in logprobs]

    @property
    def _keep(self) -> list[Tensor]:
        return [*(metric > 0 for metric in self._metrics[:-2]), *(metric < 0 for metric in self._metrics[-2:])]

    def kept(self) -> tuple[list[Sample], Sample]:
        """The samples, less the prompts that the model treats otherwise."""
        keep = [marks.tolist() for marks in self._keep]
        does = ["refuses"] * (len(self._samples) - 1) + ["answers"]
        found = [
            sample.keep(keep[2 * index], keep[2 * index + 1], does[index]) for index, sample in enumerate(self._samples)
        ]
        return found[:-1], found[-1]

    def means(self, filtered: bool) -> dict[str, float]:
        """Mean metric of the validation prompts in use."""
        used = [metric[keep] if filtered else metric for metric, keep in zip(self._metrics, self._keep, strict=True)]
        return {"target": float(torch.cat(used[1:-2:2]).mean()), "baseline": float(used[-1].mean())}


def _positions(positions: str, template: int) -> tuple[int | None, ...]:
    check_positions(positions)
    known: dict[str, tuple[int | None, ...]] = {
        "template": tuple(range(-template, 0)),
        "last": (-1,),
        "all": (None,),
    }
    return known[positions]


def _listed(prompts: PromptSet | Sequence[PromptSet] | None) -> list[Any]:
    if prompts is None:
        return []
    return [prompts] if isinstance(prompts, PromptSet) else list(prompts)


def _control(problem: Problem, found: Candidate) -> CandidateScore:
    """The scores of random directions of the same number and length at the same place."""
    rows = random_rows(max(1, found.rank), problem.width, problem.seed)
    vector = None if found.vector is None else rows[0] * float(found.vector.norm())
    return measured(problem, [Candidate(found.position, found.layer, rows, vector)])[0]


def _at_its_place(problem: Problem, found: Candidate) -> tuple[dict[str, Tensor], Any]:
    """What edits need beside the directions, and the separation, at the place where they were found."""
    tensors = dict(found.tensors)
    if found.vector is not None:
        tensors.setdefault("vector", found.vector)
    if found.layer is None or found.position not in problem.positions:
        return tensors, None
    p, layer = problem.positions.index(found.position), problem.layers.index(found.layer)
    target, baseline, held_target, held_baseline = (
        x[:, p, layer]
        for x in (
            problem.target(),
            problem.of(problem.baseline),
            problem.target("validation"),
            problem.of(problem.baseline, "validation"),
        )
    )
    tensors.setdefault("baseline_mean", baseline.double().mean(dim=0))
    tensors.setdefault("target_mean", target.double().mean(dim=0))
    return tensors, separation(found, target, baseline, held_target, held_baseline)


def _chosen(
    scores: Sequence[CandidateScore],
    selection: Selection,
    rule: SelectionRule,
    model: Model,
    best_effort: bool,
) -> CandidateScore:
    if selection.chosen is not None:
        return selection.chosen
    fallback = least_bad(scores, rule, model.anatomy.n_layers)
    if best_effort and fallback is not None:
        return fallback
    counts = ", ".join(f"{bound} for {count}" for bound, count in selection.counts.items())
    advice = "no direction was found" if fallback is None else "loosen a bound, or pass --best-effort"
    if NOT_FINITE in selection.counts and model.dtype == torch.float16:
        advice = "float16 ends at 65504, which an edit may exceed: load the model in bfloat16 or float32 (--dtype)"
    raise UnsupportedError(f"none of {len(scores)} candidates keeps the bounds: {counts}; {advice}")


def _table(scores: Sequence[CandidateScore], selection: Selection) -> list[dict[str, Any]]:
    return [score.to_dict() | {"rejected": selection.rejections.get((score.position, score.layer))} for score in scores]
