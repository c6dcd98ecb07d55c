"""The numbers of one tensor, in any storage format."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.storage import Bytes


def values_of(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    """A tensor's numbers with their scales applied, in its shape, rounded once to float32.

    Args:
        name: as `storage_of` takes it.

    Raises:
        UsageError, UnsupportedError: as `storage_of`, and for files that cannot be read.
    """
    config: Any = checkpoint.config.get("quantization_config") or {}
    # Of stacks of matrices, as MXFP4's are, the last two axes are those of a matrix.
    axes = len(checkpoint.info(name).shape) if name in checkpoint.tensors else 3
    storage = storage_of(name, checkpoint.tensors, config, max(0, axes - 2))
    parts = {part: np.frombuffer(b"".join(checkpoint.raw(part)), np.uint8) for part in storage.parts}

    def read(part: str, offset: int, into: Bytes) -> None:
        into[:] = parts[part][offset : offset + len(into)]

    found = np.empty((storage.slabs, storage.rows, storage.cols), np.float32)
    for slab in range(storage.slabs):
        for first, last in storage.strips():
            strip = storage.load(read, slab, first, last)
            for begin, end in storage.tiles():
                found[slab, first:last, begin:end] = storage.decode(strip, last - first, begin, end)
    return found.reshape(storage.shape)
