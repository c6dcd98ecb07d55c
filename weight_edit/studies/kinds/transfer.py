"""The transfer of directions to other prompts: other languages, other phrasings."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from weight_edit.directions.separation import auc, line_of
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.evaluation.evaluate import evaluate_in_turn
from weight_edit.evaluation.loaders import lent
from weight_edit.evaluation.probabilities import BaseLogprobs
from weight_edit.evaluation.questions import Questions, questions_of
from weight_edit.evaluation.target import ModelTarget
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.step import EditStep
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import CONTROL, MAIN, EditEntry, Positive
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab
from weight_edit.studies.places import need_set, place_of, stream_of
from weight_edit.studies.registry import study
from weight_edit.studies.rows import row_of
from weight_edit.studies.settings import Prompts
from weight_edit.studies.tables import figure, write_table
from weight_edit.utils.settings import Section


class TransferOptions(Section):
    """Settings of the transfer.

    Attributes:
        sets: requests that the model refuses, by label: of several languages, say.
        answered: ordinary requests of the same labels; where one has none, they are not measured, and the recipe's
            answered set is what directions must tell its refused ones from.
        edits: what is tried on each, by name.
        limit: prompts of each set.
        control: try random directions too.
    """

    sets: Annotated[dict[str, Prompts], Field(min_length=1)]
    answered: dict[str, Prompts] = Field(default_factory=dict)
    edits: Annotated[dict[str, EditEntry], Field(min_length=1)]
    limit: Positive = 64
    control: bool = True

    @model_validator(mode="after")
    def _labelled(self) -> "TransferOptions":
        unknown = [label for label in self.answered if label not in self.sets]
        if unknown:
            raise ValueError(f"'answered' has {unknown[0]!r}, which is not among 'sets'")
        return self


@study("transfer", paper="2505.17306")
def transfer(lab: Lab, options: TransferOptions) -> dict[str, Any]:
    """Refusal of each prompt set under each edit, and the separation by its directions.

    Writes `transfer.csv` and `.json`, a row for each set and edit, the unedited model first; `separation.csv` and
    `.json`, how well each edit's directions tell the set's prompts from ordinary ones where they were found
    (AUC; .5 is chance); and `transfer.png`.

    Returns:
        rows: the table.
        separation: AUC by directions and set.
        most_left: of each edit the largest refusal that is left of any set.
    """
    sets = {label: load_prompts(spec).at_most(options.limit) for label, spec in options.sets.items()}
    answered = {label: load_prompts(spec).at_most(options.limit) for label, spec in options.answered.items()}
    tried: dict[tuple[str, str], list[EditStep]] = {("none", "none"): []}
    known: dict[str, DirectionRows] = {}
    for label, edit in options.edits.items():
        name = edit.directions or MAIN
        known[name] = lab.directions(name)
        tried[label, name] = [lab.step(edit)]
        if options.control:
            known[f"{CONTROL} for {name}"] = control = lab.control(name)
            tried[label, CONTROL] = [lab.step(edit, control)]
    rows: list[dict[str, Any]] = []
    for label, prompts in sets.items():
        ordinary = answered.get(label)
        questions = questions_of(
            {"refused": prompts, "answered": ordinary}, max_new_tokens=lab.max_new_tokens, judges=lab.judges
        )
        unedited = ModelTarget(lab.model, lab.format)
        base = None if ordinary is None else BaseLogprobs(first=unedited.first_logprobs(questions))
        for (edit_name, name), steps in tried.items():
            row = {"set": label, "edit": edit_name, "directions": name}
            target = ModelTarget(lab.model, lab.format) if steps else unedited
            rows.append(row | _measured(lab, questions, target, base, steps))
            lab.log(f"{label}, {edit_name} with {name}: refusal {rows[-1]['refusal']:.3f}")
    write_table(lab.folder, "transfer", rows)
    lines = _separations(lab, known, sets, answered)
    write_table(lab.folder, "separation", lines)
    _draw(lab, rows)
    left = {
        label: max(row["refusal"] for row in rows if row["edit"] == label and row["directions"] != CONTROL)
        for label in options.edits
    }
    return {"rows": rows, "separation": lines, "most_left": left}


def _measured(
    lab: Lab, questions: Questions, target: ModelTarget, base: BaseLogprobs | None, steps: list[EditStep]
) -> dict[str, Any]:
    with hooked(lab.model.model, trial_hooks(lab.model, steps, embeddings=lab.embeddings)):
        return row_of(evaluate_in_turn(None, lent(target), questions, base_logprobs=base))


def _separations(
    lab: Lab, known: dict[str, DirectionRows], sets: dict[str, PromptSet], answered: dict[str, PromptSet]
) -> list[dict[str, Any]]:
    """The AUC of each edit's directions on each set."""
    lines: list[dict[str, Any]] = []
    for name, rows in known.items():
        place = place_of(lab, name.removeprefix(f"{CONTROL} for "))
        point = [Point("resid_pre", place.layer)]
        line = line_of(rows)

        def along(prompts: PromptSet, line: Tensor = line, point: list[Point] = point, at: Any = place) -> Tensor:
            return stream_of(lab, prompts, point, at.position)[:, 0] @ line

        common = None if answered.keys() >= sets.keys() else along(need_set(lab, "answered"))
        for label, prompts in sets.items():
            other = along(answered[label]) if label in answered else common
            assert other is not None
            lines.append({"directions": name, "set": label, "auc": auc(along(prompts), other)})
    return lines


def _draw(lab: Lab, rows: list[dict[str, Any]]) -> None:
    """Draw bars of each set's refusal, one colour per edit."""
    labels = list(dict.fromkeys(row["set"] for row in rows))
    bars = list(dict.fromkeys((row["edit"], row["directions"]) for row in rows))
    width = 0.8 / len(bars)
    with figure(lab.folder, "transfer", size=(max(5.0, 1.2 * len(labels) + 2), 4.0)) as axes:
        for index, (edit, name) in enumerate(bars):
            mine = {row["set"]: row for row in rows if (row["edit"], row["directions"]) == (edit, name)}
            height = np.array([mine[label]["refusal"] for label in labels])
            low, high = (np.array([mine[label][f"refusal_{end}"] for label in labels]) for end in ("low", "high"))
            shown = "unedited" if edit == "none" else f"{edit}, {name}"
            axes.bar(
                np.arange(len(labels)) + (index - (len(bars) - 1) / 2) * width,
                height,
                width,
                yerr=np.maximum([height - low, high - height], 0),
                error_kw={"elinewidth": 0.7},
                label=shown,
            )
        axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right", fontsize=8)
        axes.set_ylabel("refused requests refused")
        axes.set_ylim(0, 1.05)
        axes.figure.legend(fontsize=7, loc="outside upper center", ncols=3)
