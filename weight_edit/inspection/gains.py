"""Loud gains: norms behind writers that put one coordinate far above the others into the stream.

A model whose gains are loud has a loud coordinate in its stream, which owns a mean difference there
(abhishek9909/loud-channel-abliteration); `find` measures it in activations, this tells it before any pass.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.parts import Anatomy, Norm, Writer
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError

BOUND = 3.5
"""The ratio from which on a model's gains are loud.

Published: 2.5 and 2.7 in two models where a plain mean difference works, 4.5 to 6.9 in four where it does not; this is
the geometric middle. Measured: 28 in Gemma 3 270M.
"""

MOST_REQUESTS = 8
"""Blocks that are looked at where each costs a request to the Hub, evenly spaced."""


@dataclass(frozen=True, kw_only=True)
class BlockGains:
    """The loudest gain of the last norm behind a writer of one block.

    Attributes:
        layer: the block's number.
        norm: name of its weight.
        coordinate: of the stream, where the gain is largest in magnitude.
        ratio: that magnitude over the median one.
    """

    layer: int
    norm: str
    coordinate: int
    ratio: float


@dataclass(frozen=True)
class Gains:
    """The loudest gains of a model's blocks.

    Attributes:
        blocks: those that were looked at, in order; at least one.
    """

    blocks: tuple[BlockGains, ...]

    @property
    def ratio(self) -> float:
        """The median of the blocks' ratios."""
        return median(block.ratio for block in self.blocks)

    @property
    def loud(self) -> bool:
        """Whether the ratio is above the bound."""
        return self.ratio >= BOUND

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        blocks = [asdict(block) for block in self.blocks]
        return {"loud": self.loud, "ratio": self.ratio, "bound": BOUND, "blocks": blocks}


def gains_of(anatomy: Anatomy, disk: DiskNames, checkpoint: Checkpoint) -> Gains | None:
    """The gains of the norms behind writers, read from the checkpoint; None where there are none to read.

    Raises:
        UsageError: a file was cut or changed, or the Hub cannot be reached.
    """
    placed = [(block.layer, norm) for block in anatomy.blocks if (norm := _last(block.writers)) is not None]
    if checkpoint.comes_and_goes:
        placed = _spaced(placed, MOST_REQUESTS)
    found = []
    for layer, norm in placed:
        assert norm.weight is not None
        try:
            stored = disk.values(checkpoint, norm.weight)
        except UnsupportedError:
            # Gains that lie in another tensor, or in a format of their own, tell nothing either way.
            continue
        sizes = np.abs(stored.reshape(-1) + norm.gain_offset)
        middle = float(np.median(sizes))
        if np.isfinite(sizes).all() and middle > 0:
            loudest = int(sizes.argmax())
            ratio = float(sizes[loudest]) / middle
            found.append(BlockGains(layer=layer, norm=norm.weight, coordinate=loudest, ratio=ratio))
    return Gains(tuple(found)) if found else None


def _last(writers: Sequence[Writer]) -> Norm | None:
    """The norm with gains behind the last of a block's writers that has one."""
    norms = [writer.norm for writer in writers if writer.norm is not None and writer.norm.weight is not None]
    return norms[-1] if norms else None


def _spaced(rows: list[tuple[int, Norm]], most: int) -> list[tuple[int, Norm]]:
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
