"""Find a direction: draw prompts, compute candidates, score them, choose one, and record all of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import transformers
from torch import Tensor

from weight_edit.directions.artifact import Directions
from weight_edit.directions.refusal_metric import find_refusal_tokens, refusal_metric, token_ids
from weight_edit.directions.registry import finder_named
from weight_edit.directions.samples import check_distinct, draw
from weight_edit.directions.scores import CandidateScore, score_candidates
from weight_edit.directions.selection import Selection, SelectionRule, least_bad, select
from weight_edit.directions.separation import separation
from weight_edit.errors import UnsupportedError
from weight_edit.plan import edit_plan
from weight_edit.prompts import ChatFormat, PromptSet
from weight_edit.runtime import Hook, Model, next_token_logprobs
from weight_edit.version import __version__


def find_directions(
    model: Model,
    target: PromptSet,
    baseline: PromptSet,
    *,
    validation_target: PromptSet | None = None,
    validation_baseline: PromptSet | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    format: ChatFormat | None = None,
    method: str = "mean-difference",
    refusal_tokens: Sequence[int | str] | None = None,
    rule: SelectionRule | None = None,
    filter_prompts: bool = True,
    best_effort: bool = False,
    seed: int = 0,
    batch_size: int = 32,
) -> Directions:
    """Find the direction that carries what the model does on `target` prompts and not on `baseline` prompts.

    The settings of arXiv 2406.11717 are the defaults. Candidates are scored under the ablation that `bake`
    would write into the weights; a tied unembedding stays as it is for that, as in the paper.

    Args:
        model: from `load`.
        target: prompts that show the behaviour (refused ones); baseline: prompts that do not.
        validation_target, validation_baseline: for the scores; without them, parts of the sets above are kept
            back.
        n_train, n_validation: how many of each are drawn; smaller sets are split four to one.
        format: how prompts become tokens; the tokenizer's chat template when None.
        method: name of a finder.
        refusal_tokens: ids or words; found from the training prompts when None.
        rule: bounds on candidates.
        filter_prompts: drop target prompts that the model is more likely to answer and baseline prompts that
            it is more likely to refuse, by their first token.
        best_effort: when no candidate keeps all bounds, take the one that misses them least, and say so in
            the metadata (`best_effort`, `missed`).
        seed: draws the prompts.

    Returns:
        The unit direction, all candidates, and in `metadata` the scores of every candidate with the reason
        why it was rejected, and `warnings` to show to the user.

    Raises:
        UsageError: too few prompts, too few left after filtering, an unknown method or token, no chat
            template.
        UnsupportedError: no candidate keeps the bounds; with the number that misses each.
    """
    rule = SelectionRule() if rule is None else rule
    format = ChatFormat(model.tokenizer) if format is None else format
    find = finder_named(method)
    positions = list(range(-len(format.suffix), 0))
    warnings: list[str] = []

    check_distinct(target, baseline, warnings.append)
    sizes: dict[str, Any] = {"n_train": n_train, "n_validation": n_validation, "seed": seed}
    refused = draw("target", target, validation_target, format, **sizes, warn=warnings.append)
    answered = draw("baseline", baseline, validation_baseline, format, **sizes, warn=warnings.append)

    logprobs = [
        next_token_logprobs(model, prompts, batch_size=batch_size, description="first tokens")
        for sample in (refused, answered)
        for prompts in (sample.train, sample.validation)
    ]
    if refusal_tokens is None:
        tokens = find_refusal_tokens(logprobs[0], logprobs[2])
    else:
        tokens = token_ids(refusal_tokens, model.tokenizer)
    metrics = [refusal_metric(values, tokens) for values in logprobs]
    if filter_prompts:
        kept = [metrics[0] > 0, metrics[1] > 0, metrics[2] < 0, metrics[3] < 0]
        refused = refused.keep(kept[0].tolist(), kept[1].tolist(), "refuses")
        answered = answered.keep(kept[2].tolist(), kept[3].tolist(), "answers")
        metrics = [values[keep] for values, keep in zip(metrics, kept, strict=True)]

    candidates = find(model, refused.train, answered.train, positions, batch_size=batch_size)
    scores = score_candidates(
        model,
        candidates,
        positions,
        refused.validation,
        answered.validation,
        tokens,
        lambda direction: ablation_hooks(model, direction),
        batch_size=batch_size,
    )
    selection = select(scores, rule, model.anatomy.n_layers)
    chosen = _chosen(scores, selection, rule, model, best_effort)
    missed = selection.rejections.get((chosen.position, chosen.layer))
    if missed:
        warnings.append(f"no candidate keeps all bounds; the least bad one was taken: {missed}")
    difference = candidates[positions.index(chosen.position), chosen.layer]
    measured = separation(model, difference, chosen.layer, chosen.position, refused, answered, batch_size=batch_size)
    measured.complain(warnings.append)
    metadata = {
        "method": method,
        "layer": chosen.layer,
        "position": chosen.position,
        "positions": positions,
        "position_labels": list(format.suffix_labels),
        "model": model.source.name,
        "revision": model.source.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": {"target": refused.to_dict(), "baseline": answered.to_dict()},
        "filter_prompts": filter_prompts,
        "chat": {"system": format.system, "template": format.template},
        "seed": seed,
        "refusal_tokens": [{"id": token, "text": str(model.tokenizer.decode([token]))} for token in tokens],
        "refusal_metric": {"target": float(metrics[1].mean()), "baseline": float(metrics[3].mean())},
        "rule": asdict(rule),
        "scores": _table(scores, selection),
        "best_effort": bool(missed),
        "missed": missed,
        "separation": measured.to_dict(),
        "warnings": warnings,
        "versions": {
            "weight_edit": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    unit = difference.double() / difference.double().norm()
    return Directions(unit.float()[None], candidates, metadata)


def ablation_hooks(model: Model, direction: Tensor) -> list[Hook]:
    """Hooks that remove a unit direction (d_model,) from the whole stream, as baked weights would."""

    def read(name: str) -> Tensor:
        parameter: Tensor = model.model.get_parameter(name)
        return parameter.detach()

    # "untie": the edit is one of the stream; what it does to a tied unembedding is for `bake` to decide.
    return edit_plan(model.anatomy, direction[None], read, embeddings="untie").hooks(read)


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
    raise UnsupportedError(f"none of {len(scores)} candidates keeps the bounds: {counts}; {advice}")


def _table(scores: Sequence[CandidateScore], selection: Selection) -> list[dict[str, Any]]:
    return [score.to_dict() | {"rejected": selection.rejections.get((score.position, score.layer))} for score in scores]
