"""Places of a search, made by hand: what finds would have left of a model of six layers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.directions import Directions
from weight_edit.directions.find_folder import Searched
from weight_edit.search.places import Places

LAYERS, WIDTH = 6, 16


def unit(seed: int, count: int = 1) -> Tensor:
    """Random rows of unit length, float64."""
    drawn = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def searched(candidates: Sequence[Candidate], positions: Sequence[int | None] = (-2, -1)) -> Searched:
    """What a method with these candidates left."""
    means = torch.zeros(len(positions), LAYERS, WIDTH, dtype=torch.float64)
    return Searched(
        candidates=candidates,
        separations=[None] * len(candidates),
        target_mean=means,
        baseline_mean=means,
        positions=tuple(positions),
        facts={},
        warnings=(),
    )


def directions(position: int | None, layer: int | None) -> Directions:
    """Chosen directions, of which only the place is asked."""
    return Directions(unit(0).float(), metadata={"position": position, "layer": layer})


def mean_differences(length: Callable[[int], float] = lambda layer: layer + 1.0) -> list[Candidate]:
    """A difference at each of two positions and all layers, longer in later ones; none at the first layer of one."""
    found = []
    for position in (-2, -1):
        for layer in range(LAYERS):
            vector = length(layer) * unit(100 * -position + layer)[0]
            if (position, layer) == (-2, 0):
                vector = torch.zeros_like(vector)
            found.append(Candidate(position=position, layer=layer, rows=vector[None], vector=vector))
    return found


def several_rows() -> list[Candidate]:
    """Three directions at one place, and nothing else, of a method that gives one candidate."""
    rows = 5 * unit(7, 3)
    return [Candidate(position=-1, layer=2, rows=rows, vector=rows[0])]


def places(**more: tuple[Searched, Directions]) -> Places:
    """Mean differences of which that at position -1 and layer 3 was chosen, and other finds by name."""
    finds: dict[str, Any] = {"mean-difference": (searched(mean_differences()), directions(-1, 3))}
    return Places.of(finds | more)


def with_som() -> Places:
    """Mean differences, and three directions at one place by another method."""
    return places(som=(searched(several_rows()), directions(-1, 2)))
