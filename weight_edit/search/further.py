"""A further direction for an edit, mined from the prompts that are refused in spite of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from weight_edit.directions.problem import streams_under
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.runtime.loading import Model
from weight_edit.search.point import Point

POSITION = -1
"""Where prompts are looked at: their last token, which the answer follows."""

LEAST = 1e-3
"""The share of a difference that lies outside of the edit's own directions, below which it is none of its own."""


def further_points(
    model: Model,
    point: Point,
    refused: Sequence[Sequence[int]],
    ordinary: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    batch_size: int | None = None,
) -> list[Point]:
    """The edit with one more direction, for each layer that has one.

    It is the difference between the mean stream of prompts that are refused under the edit and that of ordinary
    prompts, both under the edit, at the last token of a prompt and the input of a layer, without its component along
    the directions that the edit has already.

    Args:
        refused: token ids of prompts that are refused under the edit; at least one.
        ordinary: token ids of prompts that are answered.
        layers: where to look.
    """
    streams = streams_under(
        model,
        (point.variant(model),),
        [*refused, *ordinary],
        layers,
        (POSITION,),
        batch_size=batch_size,
        name="still refused",
    )[0, :, 0].double()
    differences = streams[: len(refused)].mean(dim=0) - streams[len(refused) :].mean(dim=0)
    own = torch.from_numpy(point.rows).double()
    found = []
    for layer, difference in zip(layers, differences, strict=True):
        rest = difference - own.T @ (own @ difference)
        if not bool(rest.isfinite().all()) or float(rest.norm()) <= LEAST * float(difference.norm()):
            continue
        rows = orthonormal_rows(np.concatenate([point.rows, rest[None].numpy()])).astype(np.float32)
        facts = {"further_layer": layer, "still_refused": len(refused), "edit": point.digest}
        found.append(replace(point, rows=rows, origin="further direction", facts=facts))
    return found
