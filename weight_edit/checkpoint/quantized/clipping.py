"""Blocks whose grid no longer fits their numbers: cut by more than they are rounded, or far within it.

A block's scale was made for its largest number. An edit can make that larger; by a little, it does as well under the
old scale, cut to the grid's end, as any rounded number does. Only where the cut is more than all of the block's
rounding is another scale worth its coarser steps. And an edit can make it smaller, where one row has most of a
direction: then a scale for what is left has the finer steps.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Neighbours
from weight_edit.utils.fixed_sums import row_squares

Blocks = NDArray[np.float64]


def misfits(
    blocks: Blocks,
    largest: NDArray[np.float64],
    least: float,
    neighbours: Callable[[Blocks, NDArray[np.bool_]], Neighbours],
    held: Callable[[], Blocks],
) -> NDArray[np.bool_]:
    """A mask of the blocks whose numbers beyond the grid cost more than its rounding, or need less than half of it.

    Blocks that needed as little before the edit stay as they are.

    Args:
        blocks: numbers, (..., size).
        largest: the largest number of each block's grid, (...), not negative; grids are symmetric, or nearly so.
        least: how far beyond, as a share of the largest, a block's numbers must go to be looked at.
        neighbours: of the chosen blocks, (chosen, size), by their mask, (...).
        held: gives the numbers before the edit.
    """
    peaks = np.maximum(blocks.max(axis=-1), -blocks.min(axis=-1))
    beyond: NDArray[np.bool_] = peaks > largest * (1 + least)
    if beyond.any():
        chosen = blocks[beyond]
        gaps = neighbours(chosen, beyond).gap.astype(np.float64)
        cut = np.maximum(np.abs(chosen) - largest[beyond][:, None], 0)
        # A number that is rounded within a gap is off by a twelfth of its square, on average.
        beyond[beyond] = row_squares(cut) > row_squares(gaps) / 12
    within = (peaks < largest / 2) & (peaks > 0)
    if within.any():
        within &= peaks < np.abs(held()).max(axis=-1) / 2
        beyond |= within
    return beyond
