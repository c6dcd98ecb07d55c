"""A search for directions on a model and prompts, without drawing or filtering."""

from collections.abc import Sequence
from typing import Any

from weight_edit.directions.problem import Problem
from weight_edit.directions.samples import Sample
from weight_edit.runtime.loading import Model

Ids = Sequence[Sequence[int]]


def sample(role: str, train: Ids, validation: Ids = ()) -> Sample:
    """Token ids as a sample."""
    return Sample(
        role=role,
        name=role,
        sha256="",
        held_name=role,
        held_sha256="",
        train=[list(ids) for ids in train],
        validation=[list(ids) for ids in validation],
        sizes=(len(train), len(validation)),
    )


def problem_of(model: Model, target: Ids, baseline: Ids, positions: Sequence[int | None], **changes: Any) -> Problem:
    """A problem with one target; `changes` are its other attributes."""
    layers = model.anatomy.n_layers
    given: dict[str, Any] = {
        "targets": (sample("target", target),),
        "baseline": sample("baseline", baseline),
        "protected": (),
        "positions": tuple(positions),
        "layers": tuple(range(layers)),
        "allowed": layers,
        "tokens": (),
        "seed": 0,
        "batch_size": 8,
        "warn": print,
    }
    return Problem(model=model, **{**given, **changes})
