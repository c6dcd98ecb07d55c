"""The searches for directions of a recipe, and what a run records of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weight_edit.checkpoint.manifest import sha256
from weight_edit.directions.directions import Directions
from weight_edit.directions.file import folder_of
from weight_edit.directions.find import find_requested
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.registry import finder_named
from weight_edit.directions.selection import SelectionRule
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.prompts.chat import ChatFormat
from weight_edit.recipe.recipe import MAIN, Find, slug
from weight_edit.runtime.loading import Model

_SAID = (
    *("method", "layer", "position", "warnings", "refusal_tokens", "tokens_from", "separation", "control", "facts"),
    *("certainty", "confirmation"),
)


@dataclass(frozen=True)
class Search:
    """A search whose prompts are read already, so that errors in them come first."""

    section: Find
    request: FindRequest

    @classmethod
    def of(cls, section: Find, seed: int) -> "Search":
        """The search of a recipe's section, with its prompts read.

        Raises:
            UsageError: prompts that cannot be read or are too few, or a method or option that there is not.
        """
        finder_named(section.method).settings(section.options)
        request = FindRequest.read(
            target=section.target,
            baseline=section.baseline,
            protect=section.protect,
            validation_target=section.validation_target,
            validation_baseline=section.validation_baseline,
            n_train=section.n_train,
            n_validation=section.n_validation,
            method=section.method,
            options=section.options,
            positions=section.positions,
            refusal_tokens=section.refusal_tokens,
            rule=SelectionRule(**section.rule),
            tokens_from=section.tokens_from,
            filter_prompts=section.filter_prompts,
            judge=section.judge,
            n_answers=section.n_answers,
            max_new_tokens=section.max_new_tokens,
            n_more=section.n_more,
            confirm=section.confirm,
            confirm_by=section.confirm_by,
            best_effort=section.best_effort,
            seed=seed,
        )
        return cls(section, request)

    @property
    def key(self) -> list[Any]:
        """All inputs of the search but model and seed; prompts by content, as files may change."""
        digests = [None if some is None else some.content_sha256 for some in self.request.sets]
        # How many prompts share a pass is no input.
        return [digests, self.section.model_dump(mode="json", exclude={"batch_size"})]

    def run(self, model: Model, chat_format: ChatFormat, out: Path) -> dict[str, Any]:
        """Find and save the directions; returns the entry for the run's record.

        What is found is kept beside `out` as it comes: a run that goes on does not score again, nor for other bounds.
        """
        directions = find_requested(
            self.request,
            model,
            chat_format,
            batch_size=self.section.batch_size,
            scores=folder_of(out),
            resume=True,
            overwrite=True,
        )
        directions.save(out)
        meta = directions.metadata
        place = meta["layer"], meta["position"]
        chosen = next(score for score in meta["scores"] if (score["layer"], score["position"]) == place)
        return {
            **{key: meta[key] for key in _SAID},
            **{key: chosen[key] for key in ("bypass", "induce", "kl", "rank")},
            "candidates": len(meta["scores"]),
            "kept_bounds": sum(score["rejected"] is None for score in meta["scores"]),
            "sha256": sha256(out),
        }


def write_given(rows: DirectionRows, out: Path) -> dict[str, Any]:
    """Write directions that the recipe brings along; returns the entry for the run's record."""
    tensors = {name: torch.from_numpy(values) for name, values in rows.tensors.items()}
    Directions(torch.from_numpy(rows.rows), None, dict(rows.metadata), tensors).save(out)
    return {"count": len(rows.rows), "method": rows.metadata.get("method"), "sha256": sha256(out)}


def directions_file(name: str) -> str:
    """The file name of a search's directions in a run's folder."""
    return "directions.safetensors" if name == MAIN else f"directions-{slug(name)}.safetensors"


def step_name(kind: str, name: str) -> str:
    """The name of a step in a run's record; a main search's step needs no further name."""
    return kind if name == MAIN else f"{kind} {name}"
