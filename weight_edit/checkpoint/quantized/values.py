"""The numbers of one tensor, in any storage format."""

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.format import StoredTensors
from weight_edit.checkpoint.quantized.formats import format_of, storage_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.storage import Bytes, Storage


def values_of(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    """A tensor's numbers with their scales applied, in its shape, rounded once to float32.

    Args:
        name: as `storage_of` takes it.

    Raises:
        UsageError, UnsupportedError: as `storage_of`, and for files that cannot be read.
    """
    storage = matrices_of(checkpoint, name)
    parts = {part: np.frombuffer(b"".join(checkpoint.raw(part)), np.uint8) for part in (*storage.parts, *storage.aside)}

    def read(part: str, offset: int, into: Bytes) -> None:
        into[:] = parts[part][offset : offset + len(into)]

    found = np.empty((storage.slabs, storage.rows, storage.cols), np.float32)
    for slab in range(storage.slabs):
        for first, last in storage.strips():
            strip = storage.load(read, slab, first, last)
            for begin, end in storage.tiles():
                found[slab, first:last, begin:end] = storage.decode(strip, last - first, begin, end)
    return found.reshape(storage.shape)


def matrices_of(checkpoint: Checkpoint, name: str) -> Storage:
    """The storage of a tensor as matrices of its last two axes.

    Args:
        name: as `storage_of` takes it.

    Raises:
        UsageError, UnsupportedError: as `storage_of`.
    """
    stored = stored_tensors(checkpoint)
    # Of stacks of matrices, as MXFP4's are, the last two axes are those of a matrix.
    axis = -2 if format_of(name, stored) else max(0, len(checkpoint.info(name).shape) - 2)
    return storage_of(name, stored.tensors, stored.config, axis, stored.read)


def stored_tensors(checkpoint: Checkpoint) -> StoredTensors:
    """What the storage of a checkpoint's parameters follows from."""
    return StoredTensors(checkpoint.tensors, checkpoint.quantization, checkpoint.content)
