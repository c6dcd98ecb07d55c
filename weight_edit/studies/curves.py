"""Trade-off curves: drawn, and compared by one distance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weight_edit.recipe.recipe import CONTROL
from weight_edit.studies.rows import FIGURES
from weight_edit.studies.tables import colour, figure

_STEPS = 101


def draw_curves(folder: Path, name: str, points: Mapping[str, Sequence[Mapping[str, Any]]], x: str, y: str) -> None:
    """Draw one line per curve, in order of its points, with intervals.

    Nothing is drawn where a figure was not measured.
    """
    if not any(x in row and y in row for rows in points.values() for row in rows):
        return
    with figure(folder, name) as axes:
        for number, (label, rows) in enumerate(points.items()):
            drawn = [row for row in rows if x in row and y in row]
            across = [row[x] for row in drawn]
            up = [row[y] for row in drawn]
            error = [
                [row[y] - row.get(f"{y}_low", row[y]) for row in drawn],
                [row.get(f"{y}_high", row[y]) - row[y] for row in drawn],
            ]
            control = label == CONTROL
            axes.errorbar(
                across,
                up,
                yerr=np.maximum(error, 0),
                label=label,
                linestyle="--" if control else "-",
                color="black" if control else colour(number, len(points)),
                marker="o",
                markersize=3,
                elinewidth=0.5,
            )
        axes.set_xlabel(FIGURES.get(x, x))
        axes.set_ylabel(FIGURES.get(y, y))
        axes.legend(fontsize=7)


def curve_distance(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], x: str, y: str
) -> float | None:
    """The mean distance from each point of a curve to the nearest point of the other.

    Curves are taken as chains of straight lines in the plane of the two figures, both ways round, so that neither the
    strengths at which they were measured nor their order matter. 0 is the same curve; rates being at most 1, .05 is
    five points.

    Returns:
        None where a figure was not measured.
    """
    chains = [[(row[x], row[y]) for row in rows if x in row and y in row] for rows in (first, second)]
    if not all(chains):
        return None
    dense = [_dense(np.array(chain, dtype=np.float64)) for chain in chains]
    gaps = np.linalg.norm(dense[0][:, None] - dense[1][None, :], axis=-1)
    return float((gaps.min(axis=0).mean() + gaps.min(axis=1).mean()) / 2)


def _dense(chain: np.ndarray) -> np.ndarray:
    """Points along a chain, evenly spaced by arc length."""
    if len(chain) == 1:
        return chain
    lengths = np.linalg.norm(np.diff(chain, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.linspace(0.0, along[-1], _STEPS)
    return np.stack([np.interp(at, along, chain[:, axis]) for axis in range(2)], axis=1)
