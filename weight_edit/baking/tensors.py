"""The edited tensors of a checkpoint as streams of bytes, for every storage format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from weight_edit.checkpoint.files import read_json
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.dequantize import AxisEdit, dequantised
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.quantized.modelopt import OWN_CONFIG, declared, without
from weight_edit.checkpoint.quantized.unquantized import modelopt_modules
from weight_edit.checkpoint.quantized.values import stored_tensors
from weight_edit.checkpoint.rewrite.planning import AddedTensor
from weight_edit.checkpoint.source.checkpoint import CONFIG, Checkpoint
from weight_edit.checkpoint.source.refused import check_format, quantization_of
from weight_edit.checkpoint.tensor.edited import EditedTensor, TensorWriter
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Matrix, Plain
from weight_edit.edits.on_tensor import TensorEdit

QUANTIZATION = "quantization_config"
BALANCED, NEAREST = "balanced", "nearest"
ROUNDINGS = (BALANCED, NEAREST)


@dataclass(frozen=True)
class EditedTensors:
    """The edited tensors of a checkpoint, with the config changes that their formats need.

    Attributes:
        edits: the tensors that change.
        config: keys of config.json that change with their format; None takes one out.
        files: other files that change with it, relative path -> content.
    """

    edits: tuple[TensorWriter, ...]
    config: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Whether any tensor is rounded to a quantised format again."""
        return any(edited.target.lossy for edited in self.edits)

    @property
    def rounded(self) -> int:
        """How many numbers are rounded to a quantised format again."""
        return sum(prod(edited.target.shape) for edited in self.edits if edited.target.lossy)

    def copies(self, checkpoint: Checkpoint, added: Mapping[str, AddedTensor]) -> list[TensorWriter]:
        """Writers of the added tensors that copy or edit a source tensor."""
        found: list[TensorWriter] = []
        for name, tensor in added.items():
            if isinstance(tensor.content, str):
                info = checkpoint.info(tensor.content)
                before = Plain(info.name, info.dtype, info.shape, 0)
                found.append(
                    EditedTensor(
                        source=before, target=Plain(name, info.dtype, info.shape, 0), map=None, along_rows=False
                    )
                )
            elif not isinstance(tensor.content, bytes):
                found.append(tensor.content)
        return found


def derived_tensor(info: TensorInfo, name: str, edit: TensorEdit) -> EditedTensor:
    """A new tensor computed from a source tensor that also stays.

    Args:
        info: of the source's, in a plain floating format.
        name: of the new one.
    """
    before, after = (Plain(one, info.dtype, info.shape, edit.axis) for one in (info.name, name))
    along_rows = Matrix.of(info.shape, edit.axis).along_rows
    return EditedTensor(
        source=before, target=after, map=edit.map, along_rows=along_rows, gains=edit.gains, keep_norms=edit.keep_norms
    )


def own_file(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, bytes]:
    """The file in which ModelOpt says how weights are quantised, without some tensors; empty where there is none."""
    if OWN_CONFIG not in checkpoint.files or checkpoint.quantization.get("quant_method") != "modelopt":
        return {}
    content = read_json(checkpoint.read_file(OWN_CONFIG), OWN_CONFIG, unique_keys=False)
    declared(content)
    return {OWN_CONFIG: json.dumps(without(content, modelopt_modules(names)), indent=4).encode("utf-8")}


def edited_tensors(
    checkpoint: Checkpoint, edits: Mapping[str, TensorEdit], *, dequantize: bool = False, rounding: str = BALANCED
) -> EditedTensors:
    """The edited tensors of a checkpoint.

    Args:
        edits: name on disk -> map and axis, with its gains and whether lengths are kept.
        dequantize: write the quantised ones among them as bfloat16.
        rounding: "nearest" to the nearest number of a quantised format, which can undo an edit; "balanced" to one of
            the two neighbours, such that the edit stays.

    Raises:
        UsageError: scales that do not fit their weights.
        UnsupportedError: a format that cannot be edited.
    """
    check_format(checkpoint.config, checkpoint.tensors)
    given = stored_tensors(checkpoint)
    changed: dict[str, Any] = {}
    files: Mapping[str, bytes] = {}
    found: list[TensorWriter] = []
    left = dict(edits)
    if dequantize:
        wanted = {name: AxisEdit(e.axis, e.map, e.gains, e.keep_norms) for name, e in edits.items()}
        plain = dequantised(wanted, given.tensors, given.config, given.read)
        found.extend(plain.streams.values())
        left = {name: edit for name, edit in edits.items() if name not in plain.streams}
        if plain.streams:
            files = own_file(checkpoint, tuple(plain.streams))
            # What ModelOpt says in a file of its own alone, config.json does not say.
            own = read_json(checkpoint.read_file(CONFIG), CONFIG, unique_keys=False, constants=True)
            if not files or quantization_of(own) is not None:
                changed[QUANTIZATION] = plain.config
    for name, edit in left.items():
        storage = storage_of(name, given.tensors, given.config, edit.axis, given.read)
        kind = BalancedTensor if storage.lossy and rounding == BALANCED else EditedTensor
        along_rows = Matrix.of(storage.shape, edit.axis).along_rows
        found.append(
            kind(
                source=storage,
                target=storage,
                map=edit.map,
                along_rows=along_rows,
                gains=edit.gains,
                keep_norms=edit.keep_norms,
            )
        )
    return EditedTensors(tuple(found), changed, files)
