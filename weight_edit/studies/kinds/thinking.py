"""Edits of thinking models: scored with the unedited model's thought, and with a new one."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from weight_edit.directions.finders.random_control import random_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.results import Evaluation
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
from weight_edit.studies.rows import rate_row, row_of
from weight_edit.studies.settings import Layer, Prompts
from weight_edit.studies.tables import figure, write_table
from weight_edit.utils.settings import Section

PROMPT, THOUGHT = "end of the prompt", "end of the thought"
KEPT, ANEW = "thought kept", "thought anew"


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


@study("thinking", paper="2605.26772")
def thinking(lab: Lab, options: ThinkingOptions) -> dict[str, Any]:
    """Directions at the end of prompt and thought, scored with thoughts kept and made anew.

    Two differences in means: of the last token of the prompt, and of the last before the answer, after the unedited
    model's own thought. Each edit is scored on answers that follow the unedited model's thought, and on answers that
    follow what the edited model thinks. Writes `thinking.csv` and `.json`, a row for each direction, edit and scoring,
    and `thinking.png`.

    Returns:
        rows: the table; `flipped` is the share of requests that the unedited model refuses and the edited one answers.
        hidden: for each direction and edit, by how much less is flipped with the thought kept than anew.

    Raises:
        UsageError: the model does not think, or too few of its thoughts come to an end.
    """
    thoughts: dict[str, str] = {}
    made = [_thought_of(lab, load_prompts(spec).at_most(options.n), options, thoughts) for spec in _specs(options)]
    roles = [role for role in ("refused", "answered") if role == "refused" or lab.sets.get(role) is not None]
    sets = {role: _thought_of(lab, need_set(lab, role).at_most(options.limit), options, thoughts) for role in roles}
    kept = ThoughtFormat(
        lab.model.tokenizer,
        thoughts,
        system=lab.format.system,
        template=lab.format.template,
        template_args=lab.format.template_args,
    )
    here = place_of(lab, layer=options.layer, position=-1).layer
    behind = here if options.thought_layer is None else place_of(lab, layer=options.thought_layer, position=-1).layer
    known = {
        PROMPT: difference(lab, made[0], made[1], here, lab.format),
        THOUGHT: difference(lab, made[0], made[1], behind, kept),
    }
    if options.control:
        known[CONTROL] = random_like(known[PROMPT], lab.seed)

    formats = {KEPT: kept, ANEW: lab.format}
    before = {scoring: _evaluated(lab, sets, chat_format, [], options) for scoring, chat_format in formats.items()}
    rows: list[dict[str, Any]] = [
        {"direction": "none", "edit": "none", "scoring": scoring, **_row(found, found)}
        for scoring, found in before.items()
    ]
    for name, directions in known.items():
        for label, edit in options.edits.items():
            for scoring, chat_format in formats.items():
                found = _evaluated(lab, sets, chat_format, [edit_step(edit, directions)], options)
                rows.append({"direction": name, "edit": label, "scoring": scoring, **_row(before[scoring], found)})
                lab.log(f"{name}, {label}, {scoring}: refusal {rows[-1]['refusal']:.3f}")
    write_table(lab.folder, "thinking", rows)
    _draw(lab, rows)
    flips = {(row["direction"], row["edit"], row["scoring"]): row["flipped"] for row in rows if "flipped" in row}
    hidden = {
        name: {label: flips[name, label, ANEW] - flips[name, label, KEPT] for label in options.edits}
        for name in known
        if all((name, label, scoring) in flips for label in options.edits for scoring in formats)
    }
    return {"rows": rows, "hidden": hidden}


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


def flipped(before: Evaluation, after: Evaluation) -> Rate | None:
    """The rate of requests refused before that are answered now; None if none was refused."""
    pairs = [
        (old.verdict, new.verdict)
        for old, new in zip(before.answers, after.answers, strict=True)
        if old.set == "refused" and old.verdict is Verdict.REFUSED
    ]
    return Rate(sum(new is Verdict.ANSWERED for _, new in pairs), len(pairs)) if pairs else None


def _specs(options: ThinkingOptions) -> tuple[str, str]:
    return options.target, options.baseline


def _thought_of(lab: Lab, prompts: PromptSet, options: ThinkingOptions, thoughts: dict[str, str]) -> PromptSet:
    """The prompts with a finished thought; the thoughts are added to `thoughts`."""
    found = think(lab.model, prompts.prompts, lab.format, max_new_tokens=options.max_thought)
    if len(found) < max(2, len(prompts) // 4):
        raise UsageError(
            f"{prompts.name}: the model comes to the end of a thought about only {len(found)} of {len(prompts)} "
            "prompts; this study needs one that thinks between <think> and </think>, or a larger 'max_thought'"
        )
    thoughts |= found
    rows = [row for row, prompt in enumerate(prompts.prompts) if prompt in found]
    return PromptSet.of(
        prompts.name,
        [prompts.prompts[row] for row in rows],
        [prompts.answers[row] for row in rows],
        [prompts.categories[row] for row in rows],
    )


def _evaluated(
    lab: Lab, sets: Mapping[str, PromptSet], chat_format: ChatFormat, steps: list[EditStep], options: ThinkingOptions
) -> Evaluation:
    with hooked(lab.model.model, trial_hooks(lab.model, steps, embeddings=lab.embeddings)):
        return evaluate(
            lab.model,
            refused=sets["refused"],
            answered=sets.get("answered"),
            chat_format=chat_format,
            # Room for a thought and the answer, whichever the model is to write.
            max_new_tokens=lab.max_new_tokens + (0 if isinstance(chat_format, ThoughtFormat) else options.max_thought),
            judges=lab.judges,
        )


def _row(before: Evaluation, found: Evaluation) -> dict[str, Any]:
    rate = flipped(before, found)
    assert found.refused is not None
    undecided = found.refused.verdicts.get(Verdict.UNDECIDED.value, 0)
    return {**({} if rate is None else rate_row("flipped", rate)), **row_of(found), "undecided": undecided}


def _draw(lab: Lab, rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if row["edit"] != "none" and "flipped" in row]
    if not drawn:
        return
    labels = list(dict.fromkeys((row["direction"], row["edit"]) for row in drawn))
    with figure(lab.folder, "thinking", size=(max(5.0, 1.3 * len(labels) + 2), 4.0)) as axes:
        for offset, scoring in ((-0.2, KEPT), (0.2, ANEW)):
            mine = [row for row in drawn if row["scoring"] == scoring]
            at = [labels.index((row["direction"], row["edit"])) + offset for row in mine]
            error = [
                [max(0.0, row["flipped"] - row["flipped_low"]) for row in mine],
                [max(0.0, row["flipped_high"] - row["flipped"]) for row in mine],
            ]
            axes.bar(at, [row["flipped"] for row in mine], 0.4, yerr=error, error_kw={"elinewidth": 0.7}, label=scoring)
        names = [f"{edit}\n{direction}" for direction, edit in labels]
        axes.set_xticks(range(len(labels)), names, fontsize=7)
        axes.set_ylabel("refused requests that are answered")
        axes.set_ylim(0, 1.05)
        axes.figure.legend(fontsize=7, loc="outside upper center", ncols=2)
