"""Edits of thinking models, scored with thoughts kept, removed, made anew, and with the new thoughts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weight_edit.directions.finders.random_control import random_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.loss import Loss
from weight_edit.evaluation.results import Evaluation
from weight_edit.evaluation.significance import LEVEL, holm
from weight_edit.evaluation.thinking import think
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.recipe.recipe import CONTROL, EditEntry, Positive
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab, edit_step
from weight_edit.studies.places import need_set, place_of, stream_of
from weight_edit.studies.registry import study
from weight_edit.studies.rows import rate_row
from weight_edit.studies.settings import Layer, Prompts
from weight_edit.studies.tables import figure, write_table
from weight_edit.utils.settings import Section

PROMPT, THOUGHT = "end of the prompt", "end of the thought"
KEPT, REMOVED, ANEW, ALONE = "thought kept", "thought removed", "thought anew", "new thought alone"
CONDITIONS = (KEPT, REMOVED, ANEW, ALONE)
"""The conditions of arXiv 2605.26772, in its order."""


class ThinkingOptions(Section):
    """Settings of the thinking study.

    Attributes:
        target, baseline: prompts that directions are made of, refused and answered.
        edits: what is made of each direction, by name.
        layer: at whose input the directions are taken; where the recipe's `find` found its own, when absent.
        thought_layer: the same for the end of the thought, when it is another.
        n: prompts of each kind for a direction.
        limit: prompts of each set that is measured on.
        max_thought: tokens of a thought; a longer one is no thought.
        control: random directions beside them.
    """

    target: Prompts
    baseline: Prompts
    edits: Annotated[dict[str, EditEntry], Field(min_length=1)]
    layer: Layer | None = None
    thought_layer: Layer | None = None
    n: Positive = 64
    limit: Positive = 64
    max_thought: Positive = 64
    control: bool = True


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured in one condition.

    Attributes:
        answers: to all prompts, set by set, in the order of the sets.
        losses: the cross-entropy of the known answers by set, of prompts that were answered here.
    """

    answers: tuple[Answer, ...]
    losses: Mapping[str, Loss]


@study("thinking", paper="2605.26772")
def thinking(lab: Lab, options: ThinkingOptions) -> dict[str, Any]:
    """Directions at the end of prompt and thought, each edit scored in four conditions of the thought.

    Two differences in means: of the last token of the prompt, and of the last before the answer, after the unedited
    model's own thought. Conditions: `thought kept`, the edited model answers after the unedited model's thought;
    `thought removed`, it answers after a thought that is closed at once, as `thinking: off` closes it;
    `thought anew`, it thinks and answers; `new thought alone`, the unedited model answers after that new thought. The
    base of each is the same with the edit off, which for the last is the unedited model after its own thought.
    Prompts are those whose thought the unedited model finishes. Writes `thinking.csv` and `.json`, a row for each
    direction, edit and condition, and `thinking.png`.

    Returns:
        rows: the table. `flipped` is the share of answered requests among those that the base refuses in this
            condition; `flipped_difference` by how much more of all refused requests are answered than by that base,
            `flipped_p` McNemar's p value of it, `flipped_p_holm` corrected for all rows, `told` what it tells.
            `new_thoughts` is the share of thoughts that are not the unedited model's, `no_thought` and
            `thought_anyway` are the answers without a finished thought where there should be one, and with one where
            there should be none. Without a new thought that could stand alone a request is undecided.
        against_kept: for each direction and edit, the share of requests flipped in every other condition less that
            with the thought kept, on the requests that both bases refuse, with a 95% interval and McNemar's p value.

    Raises:
        UsageError: the model does not think, too few of its thoughts come to an end, or the run turns them off.
    """
    if lab.format.thinking == "off":
        raise UsageError("this study compares thoughts, which `thinking` turns off; leave it out", option="thinking")
    thoughts: dict[str, str] = {}
    made = [_thought_of(lab, load_prompts(spec).at_most(options.n), options, thoughts) for spec in _specs(options)]
    roles = [role for role in ("refused", "answered") if role == "refused" or lab.sets.get(role) is not None]
    sets = {role: _thought_of(lab, need_set(lab, role).at_most(options.limit), options, thoughts) for role in roles}
    kept = _after(lab, thoughts)
    here = place_of(lab, layer=options.layer, position=-1).layer
    behind = here if options.thought_layer is None else place_of(lab, layer=options.thought_layer, position=-1).layer
    known = {
        PROMPT: difference(lab, made[0], made[1], here, lab.format),
        THOUGHT: difference(lab, made[0], made[1], behind, kept),
    }
    if options.control:
        known[CONTROL] = random_like(known[PROMPT], lab.seed)

    formats = {KEPT: kept, REMOVED: lab.format.with_thinking("off"), ANEW: lab.format}
    before = {how: _measured(lab, sets, chat_format, [], options) for how, chat_format in formats.items()}
    before[ALONE] = before[KEPT]
    rows = [
        {"direction": "none", "edit": "none", "condition": how, **_row(how, found, found, thoughts)}
        for how, found in before.items()
    ]
    flips: dict[str, dict[str, dict[str, Any]]] = {}
    for name, directions in known.items():
        flips[name] = {}
        for label, edit in options.edits.items():
            after = _edited(
                lab, sets, formats, edit_step(edit, directions), options, thoughts=thoughts, kept=before[KEPT]
            )
            for how in CONDITIONS:
                row = _row(how, before[how], after[how], thoughts)
                rows.append({"direction": name, "edit": label, "condition": how, **row})
                lab.log(f"{name}, {label}, {how}: refusal {row['refusal']:.3f}")
            flips[name][label] = against_kept(before, after)
    rows = told(rows)
    write_table(lab.folder, "thinking", rows)
    _draw(lab, rows)
    return {"rows": rows, "against_kept": flips}


def difference(lab: Lab, target: PromptSet, baseline: PromptSet, layer: int, chat_format: ChatFormat) -> DirectionRows:
    """The difference in means at the last token of two prompt sets, at a layer's input.

    Raises:
        UsageError: the two have the same mean there.
    """
    point = [Point("resid_pre", layer)]
    means = [stream_of(lab, some, point, -1, chat_format=chat_format)[:, 0].mean(dim=0) for some in (target, baseline)]
    vector = means[0] - means[1]
    if not bool(vector.norm() > 1e-6 * means[1].norm()):
        raise UsageError(f"layer {layer}: refused and answered prompts have the same mean there; name another 'layer'")
    tensors = {"vector": vector, "target_mean": means[0], "baseline_mean": means[1]}
    metadata = {"method": "mean-difference", "layer": layer, "position": -1}
    return DirectionRows(
        (vector / vector.norm())[None].float().numpy(),
        metadata,
        {name: values.float().numpy() for name, values in tensors.items()},
    )


def random_like(known: DirectionRows, seed: int) -> DirectionRows:
    """A random direction of the same length at the same place."""
    row = random_rows(1, known.rows.shape[1], seed).numpy()
    length = float((known.tensors["vector"] ** 2).sum() ** 0.5)
    tensors = {**known.tensors, "vector": row[0] * length}
    return DirectionRows(row, {**known.metadata, "method": "random"}, tensors)


def flipped(before: Sequence[Answer], after: Sequence[Answer]) -> Rate | None:
    """The rate of requests refused before that are answered now; None if none was refused."""
    pairs = [
        (old.verdict, new.verdict)
        for old, new in zip(before, after, strict=True)
        if old.set == "refused" and old.verdict is Verdict.REFUSED
    ]
    return Rate(sum(new is Verdict.ANSWERED for _, new in pairs), len(pairs)) if pairs else None


def against_kept(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> dict[str, Any]:
    """By condition, the share of flipped requests less that with the thought kept, as JSON.

    Paired over the requests that both bases refuse; conditions without one are left out.
    """
    bases = {how: _asked(before[how], "refused") for how in CONDITIONS}
    outcomes = {how: _asked(after[how], "refused") for how in CONDITIONS}
    found = {}
    for how in CONDITIONS:
        both = [
            row
            for row, pair in enumerate(zip(bases[KEPT], bases[how], strict=True))
            if all(answer.verdict is Verdict.REFUSED for answer in pair)
        ]
        if how != KEPT and both:
            sides = ([outcomes[each][row].verdict is Verdict.ANSWERED for row in both] for each in (KEPT, how))
            apart = paired_difference(*sides).to_dict()
            apart["kept_only"], apart["here_only"] = apart.pop("base_only"), apart.pop("edited_only")
            found[how] = apart
    return found


def told(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with Holm's correction beside each `flipped_p`, and what it tells against the same condition's base.

    `told` is "more" or "fewer" requests answered, or "no".
    """
    tested = [row for row in rows if "flipped_p" in row]
    corrected = iter(holm([row["flipped_p"] for row in tested]))
    found = []
    for row in rows:
        if "flipped_p" in row:
            p = next(corrected)
            told = "no" if p > LEVEL else "more" if row["flipped_difference"] > 0 else "fewer"
            row = {**row, "flipped_p_holm": p, "told": told}
        found.append(row)
    return found


def _specs(options: ThinkingOptions) -> tuple[str, str]:
    return options.target, options.baseline


def _after(lab: Lab, thoughts: Mapping[str, str]) -> ThoughtFormat:
    """The format of prompts after given thoughts."""
    return ThoughtFormat(
        lab.model.tokenizer,
        thoughts,
        system=lab.format.system,
        template=lab.format.template,
        template_args=lab.format.template_args,
    )


def _thought_of(lab: Lab, prompts: PromptSet, options: ThinkingOptions, thoughts: dict[str, str]) -> PromptSet:
    """The prompts with a finished thought; the thoughts are added to `thoughts`."""
    new = [prompt for prompt in dict.fromkeys(prompts.prompts) if prompt not in thoughts]
    thoughts |= think(lab.model, new, lab.format, max_new_tokens=options.max_thought) if new else {}
    rows = [row for row, prompt in enumerate(prompts.prompts) if prompt in thoughts]
    if len(rows) < max(2, len(prompts) // 4):
        raise UsageError(
            f"{prompts.name}: the model comes to the end of a thought about only {len(rows)} of {len(prompts)} "
            "prompts; this study needs one that thinks between <think> and </think>, or a larger 'max_thought'"
        )
    return _some(prompts, rows)


def _some(prompts: PromptSet, rows: Sequence[int]) -> PromptSet:
    return PromptSet.of(
        prompts.name,
        [prompts.prompts[row] for row in rows],
        [prompts.answers[row] for row in rows],
        [prompts.categories[row] for row in rows],
    )


def _edited(
    lab: Lab,
    sets: Mapping[str, PromptSet],
    formats: Mapping[str, ChatFormat],
    step: EditStep,
    options: ThinkingOptions,
    *,
    thoughts: Mapping[str, str],
    kept: Measured,
) -> dict[str, Measured]:
    """What is measured under an edit, by condition."""
    after = {how: _measured(lab, sets, chat_format, [step], options) for how, chat_format in formats.items()}
    after[ALONE] = _alone(lab, sets, options, anew=after[ANEW], thoughts=thoughts, kept=kept)
    return after


def _alone(
    lab: Lab,
    sets: Mapping[str, PromptSet],
    options: ThinkingOptions,
    *,
    anew: Measured,
    thoughts: Mapping[str, str],
    kept: Measured,
) -> Measured:
    """The unedited model's answers after the edited model's thoughts.

    After a thought that is its own it has answered already; a thought that came to no end decides nothing.
    """
    new = {answer.prompt: answer.thought for answer in anew.answers if answer.thought is not None and _thought(answer)}
    changed = {prompt: thought for prompt, thought in new.items() if thought != thoughts[prompt]}
    places = {role: [row for row, each in enumerate(some.prompts) if each in changed] for role, some in sets.items()}
    asked = {role: _some(sets[role], rows) for role, rows in places.items() if rows}
    found = _measured(lab, asked, _after(lab, changed), [], options) if asked else Measured(answers=(), losses={})
    again = iter(found.answers)
    answers = []
    for own, answer in zip(kept.answers, anew.answers, strict=True):
        if answer.prompt in changed:
            answers.append(next(again))
        elif answer.prompt in new:
            answers.append(own)
        else:
            answers.append(_undecided(answer))
    # A loss over some of the prompts is none of all.
    return Measured(answers=tuple(answers), losses={})


def _undecided(answer: Answer) -> Answer:
    """The answer that follows no thought."""
    return Answer(
        set=answer.set,
        prompt=answer.prompt,
        answer="",
        expected=answer.expected,
        verdict=Verdict.UNDECIDED,
        category=answer.category,
        finished=False,
    )


def _thought(answer: Answer) -> bool:
    """Whether words follow a thought."""
    return answer.thought is not None and bool(answer.answer.strip())


def _measured(
    lab: Lab, sets: Mapping[str, PromptSet], chat_format: ChatFormat, steps: list[EditStep], options: ThinkingOptions
) -> Measured:
    # Room for a thought and the answer, where the model may write both: one that is told not to think may do so.
    more = 0 if isinstance(chat_format, ThoughtFormat) else options.max_thought
    given: dict[str, Any] = dict(sets)
    with hooked(lab.model.model, trial_hooks(lab.model, steps, embeddings=lab.embeddings)):
        found: Evaluation = evaluate(
            lab.model,
            **given,
            chat_format=chat_format,
            max_new_tokens=lab.max_new_tokens + more,
            judges=lab.judges,
        )
    losses = {role: result.loss for role, result in found.sets.items() if result.loss is not None}
    return Measured(answers=found.answers, losses=losses)


def _row(how: str, before: Measured, found: Measured, thoughts: Mapping[str, str]) -> dict[str, Any]:
    """The figures of a condition; those of the base itself where both are the same."""
    row: dict[str, Any] = {}
    rate = flipped(before.answers, found.answers)
    if rate is not None:
        row |= rate_row("flipped", rate)
    refused, answered = (_asked(found, role) for role in ("refused", "answered"))
    for name, some in (("refusal", refused), ("answered_refusal", answered)):
        if some:
            row |= rate_row(name, Rate(sum(each.verdict is Verdict.REFUSED for each in some), len(some)))
    for name, some in (("helpful", refused), ("exact", answered)):
        expected = [answer for answer in some if answer.expected is not None]
        if expected:
            row |= rate_row(name, Rate(sum(answer.right for answer in expected), len(expected)))
    loss = found.losses.get("answered")
    if loss is not None:
        row["loss"] = loss.mean
    row["undecided"] = sum(answer.verdict is Verdict.UNDECIDED for answer in refused)
    if how == ANEW:
        new = [answer.thought != thoughts[answer.prompt] for answer in found.answers if _thought(answer)]
        row |= rate_row("new_thoughts", Rate(sum(new), len(new))) if new else {}
        row["no_thought"] = sum(not _thought(answer) for answer in refused)
    if how == REMOVED:
        row["thought_anyway"] = sum(answer.thought is not None for answer in refused)
    if found is not before:
        # Of answers, not of refusals: an answer that came to no end is neither.
        sides = ([each.verdict is Verdict.ANSWERED for each in _asked(some, "refused")] for some in (before, found))
        apart = paired_difference(*sides)
        row |= {"flipped_difference": apart.value, "flipped_p": apart.p}
    return row


def _asked(found: Measured, role: str) -> list[Answer]:
    return [answer for answer in found.answers if answer.set == role]


def _draw(lab: Lab, rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if row["edit"] != "none" and "flipped" in row]
    if not drawn:
        return
    labels = list(dict.fromkeys((row["direction"], row["edit"]) for row in drawn))
    width = 0.8 / len(CONDITIONS)
    with figure(lab.folder, "thinking", size=(max(5.0, 1.6 * len(labels) + 2), 4.0)) as axes:
        for number, how in enumerate(CONDITIONS):
            mine = [row for row in drawn if row["condition"] == how]
            offset = (number - (len(CONDITIONS) - 1) / 2) * width
            at = [labels.index((row["direction"], row["edit"])) + offset for row in mine]
            error = [
                [max(0.0, row["flipped"] - row["flipped_low"]) for row in mine],
                [max(0.0, row["flipped_high"] - row["flipped"]) for row in mine],
            ]
            axes.bar(at, [row["flipped"] for row in mine], width, yerr=error, error_kw={"elinewidth": 0.7}, label=how)
        names = [f"{edit}\n{direction}" for direction, edit in labels]
        axes.set_xticks(range(len(labels)), names, fontsize=7)
        axes.set_ylabel("refused requests that are answered")
        axes.set_ylim(0, 1.05)
        axes.figure.legend(fontsize=7, loc="outside upper center", ncols=len(CONDITIONS))
