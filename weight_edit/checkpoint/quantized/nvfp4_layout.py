"""Where NVFP4 lies on disk: ModelOpt's names of tensors, and compressed-tensors'."""

from collections.abc import Mapping
from math import prod

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import FP8, TensorSpec
from weight_edit.checkpoint.quantized.nvfp4 import GROUP, Nvfp4
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage
from weight_edit.errors import UnsupportedError, UsageError

Tensors = Mapping[str, TensorInfo]

WHOLE = "weight_scale_2"
"""How the names of ModelOpt's scales of whole matrices end."""

GLOBAL = "weight_global_scale"
"""How those of compressed-tensors end."""

_PACKED = "weight_packed"
_SCALE = "weight_scale"


def _holds_modelopt(info: TensorInfo, stored: StoredTensors) -> bool:
    """Whether a tensor holds codes by ModelOpt, of a module (`x.weight`) or of fused experts (`x`)."""
    return info.dtype == "U8" and _beside(info.name) + WHOLE in stored.tensors


def _holds_compressed(info: TensorInfo, stored: StoredTensors) -> bool:
    """Whether a tensor holds codes by compressed-tensors."""
    return info.dtype == "U8" and info.name.removesuffix(_PACKED) + GLOBAL in stored.tensors


def is_group_scale(name: str, tensors: Tensors) -> bool:
    """Whether a tensor is scales of groups, which are FP8 numbers as FP8 weights are."""
    stem = name.removesuffix(_SCALE)
    return stem != name and (stem + WHOLE in tensors or stem + GLOBAL in tensors)


def _modelopt(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a parameter; see `formats.storage_of`."""
    stem = _beside(name)
    return _storage(stored.tensors, (name, stem + _SCALE, stem + WHOLE), axis)


def _modelopt_shape(name: str, stored: StoredTensors) -> tuple[int, ...]:
    """A parameter's shape."""
    return _unpacked(stored.tensors[name])


def _compressed(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a parameter; see `formats.storage_of`."""
    stem = name.removesuffix("weight")
    names = (stem + _PACKED, stem + _SCALE, stem + GLOBAL)
    return _storage(stored.tensors, names, axis)


def _compressed_shape(name: str, stored: StoredTensors) -> tuple[int, ...]:
    """A parameter's shape."""
    return _unpacked(stored.tensors[name.removesuffix("weight") + _PACKED])


def check_nvfp4(tensors: Tensors) -> None:
    """Check that NVFP4 codes and scales come together.

    Raises:
        UsageError: a tensor that is missing, or of another shape or dtype.
        UnsupportedError: fused experts with groups along another axis than the last.
    """
    for name in tensors:
        for end in (WHOLE, GLOBAL):
            if name.endswith(end):
                stem = name.removesuffix(end)
                codes = _codes(stem, end, tensors)
                _checked(tensors, codes, stem + _SCALE, name)


def _codes(stem: str, end: str, tensors: Tensors) -> str:
    """The name of the codes of a module or of fused experts, by the stem of their scales' names."""
    if end == GLOBAL:
        return stem + _PACKED
    return stem + "weight" if not stem.endswith("_") or stem + "weight" in tensors else stem[:-1]


def _beside(name: str) -> str:
    """The beginning of the names of what lies beside ModelOpt's codes."""
    return name.removesuffix("weight") if name.endswith(".weight") or name == "weight" else name + "_"


def _unpacked(info: TensorInfo) -> tuple[int, ...]:
    return (*info.shape[:-1], 2 * info.shape[-1]) if info.shape else ()


def _storage(tensors: Tensors, names: tuple[str, str, str], axis: int) -> Storage:
    """The storage of codes, scales of groups and the scale of the matrix, by their names."""
    packed, scales, one = _checked(tensors, *names)
    dims = len(packed.shape)
    if axis % dims < dims - 2:
        raise UnsupportedError(
            f"tensor {printable(names[0])!r} is quantised and can be edited along its last two axes only"
        )
    return Nvfp4(_spec(packed), _spec(scales), _spec(one), names[2].endswith(GLOBAL))


def _spec(info: TensorInfo) -> TensorSpec:
    return TensorSpec(info.name, info.dtype, info.shape)


def _checked(tensors: Tensors, codes: str, scale: str, whole: str) -> tuple[TensorInfo, TensorInfo, TensorInfo]:
    """The tensors of one parameter."""
    found = []
    for name, dtype in ((codes, "U8"), (scale, FP8), (whole, "F32")):
        info = tensors.get(name)
        if info is None:
            raise UsageError(
                f"NVFP4 weights need {printable(codes)!r}, {printable(scale)!r} and {printable(whole)!r}, and there is "
                f"no {printable(name)!r}; fetch the checkpoint again"
            )
        if info.dtype != dtype:
            raise UsageError(f"tensor {printable(name)!r} is {info.dtype}, where NVFP4 has {dtype}")
        found.append(info)
    packed, scales, one = found
    *lead, rows, half = packed.shape if len(packed.shape) in (2, 3) else (0, 0, 0, 0)
    if len(packed.shape) not in (2, 3) or scales.shape != (*lead, rows, 2 * half // GROUP) or 2 * half % GROUP:
        if len(packed.shape) == 3 and scales.shape == (*lead, 2 * rows // GROUP, half):
            raise UnsupportedError(
                f"tensor {printable(codes)!r} has its groups of {GROUP} along axis 1, which is not edited; give the "
                "checkpoint that it was quantised from (its card names it), and quantise the edited one again"
            )
        raise UsageError(
            f"tensor {printable(codes)!r} is {packed.shape} and {printable(scale)!r} is {scales.shape}, where NVFP4 "
            f"has (out, in / 2) and (out, in / {GROUP}); fetch the checkpoint again"
        )
    if prod(one.shape) not in (1, prod(lead)):
        raise UsageError(
            f"tensor {printable(whole)!r} is {one.shape}, where NVFP4 has one scale for each matrix; fetch the "
            "checkpoint again"
        )
    return packed, scales, one


NVFP4: tuple[Format, ...] = (
    Format(
        name="NVFP4 of ModelOpt",
        holds=_holds_modelopt,
        storage=_modelopt,
        beside=(
            *("{name}_scale", "{name}_scale_2", "{stem}input_scale"),
            *("{name}_weight_scale", "{name}_weight_scale_2", "{name}_input_scale"),
        ),
        shape=_modelopt_shape,
    ),
    Format(
        name="NVFP4 of compressed-tensors",
        codes=_PACKED,
        parameter="weight",
        holds=_holds_compressed,
        storage=_compressed,
        beside=("{stem}weight_scale", "{stem}weight_global_scale", "{stem}input_global_scale"),
        shape=_compressed_shape,
    ),
)
"""The entries of the table."""
