"""The numbers of one tensor, in any storage format."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.format import StoredTensors
from weight_edit.checkpoint.quantized.formats import format_of, storage_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files
from weight_edit.checkpoint.tensor.storage import Storage


def values_of(checkpoint: Checkpoint, name: str) -> NDArray[np.float32]:
    """A tensor's numbers with their scales applied, in its shape, rounded once to float32.

    Args:
        name: as `storage_of` takes it.

    Raises:
        UsageError, UnsupportedError: as `storage_of`, and for files that cannot be read.
    """
    storage = matrices_of(checkpoint, name)
    found = np.empty((storage.slabs, storage.rows, storage.cols), np.float32)
    for slab, values in enumerate(slabs_of(checkpoint, name)):
        found[slab] = values
    return found.reshape(storage.shape)


def slabs_of(checkpoint: Checkpoint, name: str) -> Iterator[NDArray[np.float32]]:
    """The matrices of `values_of`, one at a time: of a stack of experts no more than one is in memory.

    Raises:
        UsageError, UnsupportedError: as `values_of`.
    """
    storage = matrices_of(checkpoint, name)
    with Files(checkpoint) as files:
        for slab in range(storage.slabs):
            found = np.empty((storage.rows, storage.cols), np.float32)
            for first, last in storage.strips():
                strip = storage.load(files.tensor, slab, first, last)
                for begin, end in storage.tiles():
                    found[first:last, begin:end] = storage.decode(strip, last - first, begin, end)
            yield found


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
