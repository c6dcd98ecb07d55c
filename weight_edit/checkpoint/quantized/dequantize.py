"""Quantised tensors written as bfloat16, in transformers' layout for unquantised models.

Runtimes convert whole modules, so that the fused experts of a layer leave their format together, edited or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.quantized.format import SmallReader, StoredTensors, no_content
from weight_edit.checkpoint.quantized.formats import format_of, quantised_names, storage_of
from weight_edit.checkpoint.quantized.unquantized import config_without, experts_of
from weight_edit.checkpoint.tensor.edited import AffineMap, EditedTensor, Rounding
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Plain, Storage


@dataclass(frozen=True, eq=False)
class AxisEdit:
    """A map along an axis of a tensor on disk; None where only the format changes.

    See `EditedTensor` for the other entries.
    """

    axis: int
    map: AffineMap | None
    gains: NDArray[np.float64] | None = None
    keep_norms: bool = False


@dataclass(frozen=True, eq=False)
class Transposed:
    """An edited tensor with its matrices transposed on disk; one at a time is held, as bfloat16.

    Attributes:
        edited: the tensor as it would be written otherwise; `Rounding` is made of this.
        target: how it is stored.
    """

    edited: EditedTensor
    target: Plain

    @property
    def source(self) -> Storage:
        """See `TensorWriter`."""
        return self.edited.source

    @property
    def map(self) -> AffineMap | None:
        """See `TensorWriter`."""
        return self.edited.map

    @property
    def along_rows(self) -> bool:
        """See `TensorWriter`; for the matrices before they are transposed."""
        return self.edited.along_rows

    @property
    def gains(self) -> NDArray[np.float64] | None:
        """See `TensorWriter`."""
        return self.edited.gains

    @property
    def keep_norms(self) -> bool:
        """See `TensorWriter`."""
        return self.edited.keep_norms

    def blocks(
        self, part: str, read: ByteReader, rounding: Rounding | None = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """The bytes in order; see `EditedTensor.blocks`.

        Raises:
            UsageError: a number that is not finite, or that the edit makes too large for the format.
        """
        rows, cols = self.edited.target.rows, self.edited.target.cols
        matrix = np.empty((rows, cols), "<u2")
        some = max(1, CHUNK // max(1, 2 * rows))
        for strip in self.edited.strips(read, memory):
            if rounding is not None:
                rounding.add(strip)
            matrix[strip.first : strip.last] = strip.stored[part].view("<u2").reshape(-1, cols)
            if strip.last < rows:
                continue
            for first in range(0, cols, some):
                yield np.ascontiguousarray(matrix[:, first : first + some].T).reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class Dequantised:
    """The edits and the config of a checkpoint after some tensors become bfloat16.

    Attributes:
        streams: the new tensors by name; dtype and shape of each are its `target.parts[name]`. What its source `reads`
            has no place in the output; that has all that belongs to the codes, such as scales of activations.
        config: the new `quantization_config`; None when the key goes away.
    """

    streams: Mapping[str, EditedTensor | Transposed]
    config: Mapping[str, Any] | None


def dequantised(
    edits: Mapping[str, AxisEdit],
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    read: SmallReader = no_content,
) -> Dequantised:
    """The conversion of the edited quantised tensors, and of all experts beside edited ones.

    Args:
        edits: by name on disk as `storage_of` takes it. Plain tensors are left out.
        tensors: all tensors of the source.
        config: `quantization_config` of config.json.
        read: gives the bytes of small tensors.

    Raises:
        UnsupportedError, UsageError: as `storage_of`; a config in which single modules cannot be left out.
    """
    stored = StoredTensors(tensors, config, read)
    everything = quantised_names(tensors, config)
    wanted = [name for name in everything if name in edits]
    wanted += _going_with(wanted, everything)
    streams: dict[str, EditedTensor | Transposed] = {}
    removed: set[str] = set()
    for name in wanted:
        edit = edits.get(name, AxisEdit(-2, None))
        storage = storage_of(name, tensors, config, edit.axis, read)
        kind = format_of(name, stored)
        if kind is not None:
            beside = [tensors[part] for part in kind.tensors_of(name, tensors) if part not in storage.parts]
            storage.aside = {**storage.aside, **{info.name: (info.dtype, info.shape) for info in beside}}
        streams[name] = _stream(name, storage, edit, kind is not None and kind.transposed)
        removed |= storage.reads.keys()
    left = {name: info for name, info in tensors.items() if name not in removed}
    return Dequantised(streams, config_without(config, wanted, left))


def _going_with(wanted: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The other quantised tensors of the expert groups that edited tensors belong to."""
    layers = {prefix for name in wanted if (prefix := experts_of(name)) is not None}
    return [name for name in everything if experts_of(name) in layers and name not in set(wanted)]


def _stream(name: str, storage: Storage, edit: AxisEdit, transposed: bool) -> EditedTensor | Transposed:
    shape = storage.shape
    edited = EditedTensor(
        source=storage,
        target=Plain(name, "BF16", shape, len(shape) - 2),
        map=edit.map,
        along_rows=edit.axis % len(shape) == len(shape) - 2,
        gains=edit.gains,
        keep_norms=edit.keep_norms,
    )
    if not transposed:
        return edited
    return Transposed(edited, Plain(name, "BF16", (*shape[:-2], shape[-1], shape[-2]), len(shape) - 2))
