"""The context of a study: model, directions, prompt sets, and measurements under hooks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weight_edit.directions.directions import Directions
from weight_edit.directions.finders.random_control import random_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels
from weight_edit.errors import UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.probabilities import BaseLogprobs
from weight_edit.evaluation.questions import KL_TOKENS, Questions
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec, judge_specs
from weight_edit.evaluation.results import Evaluation
from weight_edit.evaluation.target import ModelTarget
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.plan import parse_layers
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import MAIN, EditEntry
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model
from weight_edit.studies.rows import p_values, row_of


@dataclass(frozen=True, eq=False, kw_only=True)
class Lab:
    """The context of one study.

    Attributes:
        model: unedited.
        format: how prompts become tokens.
        found: directions by the recipe's names; `recipe.MAIN` is that of its `find`.
        sets: what is measured on, by role, see `evaluate`; None for what is not.
        folder: where tables and figures go.
        seed: of whatever is drawn.
        max_new_tokens: of an answer.
        kl_tokens, text, judges: see `evaluate`.
        embeddings: what happens to a tied unembedding, see `trial_hooks`.
        log: takes a line for the run's log.
    """

    model: Model
    format: ChatFormat
    found: Mapping[str, Directions]
    sets: Mapping[str, PromptSet | None]
    folder: Path
    seed: int = 0
    max_new_tokens: int = 64
    kl_tokens: int = KL_TOKENS
    text: PromptSet | None = None
    judges: tuple[JudgeSpec, ...] = field(default_factory=lambda: judge_specs(DEFAULT_JUDGES))
    embeddings: str = "both"
    log: Callable[[str], None] = field(default=lambda line: None)

    def directions(self, name: str | None = None) -> DirectionRows:
        """The directions of a name.

        Raises:
            UsageError: nothing of that name was found.
        """
        name = name or MAIN
        if name not in self.found:
            raise UsageError(f"no directions are called {name!r}; the recipe finds {', '.join(self.found) or 'none'}")
        return self.found[name].rows

    def control(self, like: str | None = None) -> DirectionRows:
        """Random directions, as many and as long as found ones, with the same class means."""
        known = self.directions(like)
        rows = random_rows(len(known.rows), known.rows.shape[1], self.seed).numpy()
        tensors = {name: values for name, values in known.tensors.items() if name.endswith("_mean")}
        if "vector" in known.tensors:
            tensors["vector"] = (rows[0] * np.linalg.norm(known.tensors["vector"])).astype(np.float32)
        return DirectionRows(rows, {**known.metadata, "method": "random"}, tensors)

    def step(self, step: EditEntry, directions: DirectionRows | None = None) -> EditStep:
        """The step of a recipe's edit, with its own directions or given ones."""
        return edit_step(step, directions or self.directions(step.directions))

    @cached_property
    def base_logprobs(self) -> BaseLogprobs | None:
        """What the unedited model gives for edits to be compared with; None where nothing is compared.

        It is asked for before there are hooks on the model.
        """
        if self.sets.get("answered") is None and self.text is None:
            return None
        return self._unedited.base_logprobs(self._questions)

    @cached_property
    def _unedited(self) -> ModelTarget:
        """The model without hooks: what it was asked for its answers is not asked again for its evaluation."""
        return ModelTarget(self.model, self.format)

    @property
    def _questions(self) -> Questions:
        return Questions(
            sets={name: prompts for name, prompts in self.sets.items() if prompts is not None},
            text=self.text,
            max_new_tokens=self.max_new_tokens,
            judges=self.judges,
            kl_tokens=self.kl_tokens,
        )

    @cached_property
    def base_evaluation(self) -> Evaluation:
        """The evaluation of the unedited model."""
        return self.evaluate([])

    @cached_property
    def base(self) -> dict[str, Any]:
        """The figures of the unedited model."""
        return row_of(self.base_evaluation)

    def evaluate(self, steps: Sequence[EditStep]) -> Evaluation:
        """The evaluation of the model under some edits.

        Raises:
            UsageError: the recipe has no sets to measure on.
            VerificationError: a figure is not finite.
        """
        # Before the hooks are there.
        base = self.base_logprobs
        with hooked(self.model.model, trial_hooks(self.model, steps, embeddings=self.embeddings)):
            return evaluate(
                self.model if steps else self._unedited,
                refused=self.sets.get("refused"),
                answered=self.sets.get("answered"),
                over_refused=self.sets.get("over_refused"),
                harmless_looking=self.sets.get("harmless_looking"),
                text=self.text,
                base_logprobs=base,
                chat_format=self.format,
                max_new_tokens=self.max_new_tokens,
                kl_tokens=self.kl_tokens,
                judges=self.judges,
            )

    def measure(self, steps: Sequence[EditStep]) -> dict[str, Any]:
        """The evaluation as one row of a table, with p values against the unedited model, see `row_of`."""
        found = self.evaluate(steps)
        return row_of(found) | p_values(self.base_evaluation, found)


def edit_step(step: EditEntry, directions: DirectionRows) -> EditStep:
    """The step of a recipe's edit with given directions.

    Raises:
        UsageError: it is to be made where the directions were found, and they do not say where that was.
    """
    kernel: Kernels | None = step.kernel
    at = step.at
    if at == "found":
        layer = directions.metadata.get("layer")
        if not isinstance(layer, int):
            raise UsageError("the directions do not say at which layer they were found; name it, as in at: [12]")
        at = [layer]
    return EditStep(
        directions=directions,
        kind=step.kind,
        strength=step.strength,
        layers=parse_layers(step.layers),
        at=tuple(at),
        kernel=kernel,
        options=dict(step.options),
    )
