"""Where bitsandbytes' weights lie on disk, as transformers saves them, and what of its config is edited."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.bnb4 import Bnb4, Nested
from weight_edit.checkpoint.quantized.bnb8 import Bnb8
from weight_edit.checkpoint.quantized.bnb_state import LONGEST_STATE, NESTED_BLOCK, STATES, QuantState
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage
from weight_edit.errors import UnsupportedError, UsageError

Tensors = Mapping[str, TensorInfo]

_BESIDE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", *STATES.values())
"""The ends of the names of what lies beside a 4-bit weight, behind its own."""

_ON_LOAD = "give the checkpoint that it was quantised from; the edited one can be quantised again while it is loaded"


def _holds_4bit(info: TensorInfo, stored: StoredTensors) -> bool:
    """Whether a tensor holds NF4 or FP4 codes."""
    return info.dtype == "U8" and any(info.name + end in stored.tensors for end in STATES.values())


def _holds_8bit(info: TensorInfo, stored: StoredTensors) -> bool:
    """Whether a tensor, `x.weight`, holds INT8 numbers."""
    return info.dtype == "I8" and info.name.removesuffix("weight") + "SCB" in stored.tensors


def _storage_4bit(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a parameter; see `formats.storage_of`."""
    state, spec = _state(name, stored)
    block = TensorSpec(name, "U8", ((prod(state.shape) + 1) // 2, 1))
    absmax = TensorSpec(name + ".absmax", "F32" if state.offset is None else "U8", (state.blocks,))
    table = TensorSpec(name + ".quant_map", "F32", (16,))
    nested = None
    if state.offset is not None:
        nested = Nested(
            absmax=TensorSpec(name + ".nested_absmax", "F32", (-(-state.blocks // NESTED_BLOCK),)),
            levels=TensorSpec(name + ".nested_quant_map", "F32", (256,)),
        )
    for wanted in (block, absmax, table, *(() if nested is None else (nested.absmax, nested.levels))):
        _check(wanted, stored.tensors)
    return Bnb4(block, absmax, table, (spec, state), nested)


def _shape_4bit(name: str, stored: StoredTensors) -> tuple[int, ...]:
    """A parameter's shape, which its quant_state says."""
    return _state(name, stored)[0].shape


def _storage_8bit(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a parameter; see `formats.storage_of`."""
    info, stem = stored.tensors[name], name.removesuffix("weight")
    if len(info.shape) != 2:
        raise UnsupportedError(f"tensor {printable(name)!r} is {info.shape}; of bitsandbytes only matrices are edited")
    scale, order = TensorSpec(stem + "SCB", "F32", (info.shape[0],)), None
    _check(scale, stored.tensors)
    if stem + "weight_format" in stored.tensors:
        order = TensorSpec(stem + "weight_format", "U8", ())
        _check(order, stored.tensors)
        if stored.read(order.name) != b"\0":
            raise UnsupportedError(
                f"tensor {printable(order.name)!r} says that {printable(name)!r} does not lie by rows, as bitsandbytes "
                f"had it once; {_ON_LOAD}"
            )
    return Bnb8(TensorSpec(name, "I8", info.shape), scale, order)


def bitsandbytes(config: Mapping[str, Any]) -> Callable[[Tensors], None]:
    """The check of the tensors that a config of bitsandbytes declares.

    Raises:
        UnsupportedError: codes that are stored as other than bytes.
    """
    packed = config.get("bnb_4bit_quant_storage", "uint8")
    if config.get("load_in_4bit") and packed not in (None, "uint8"):
        raise UnsupportedError(
            f"config.json: the weights are quantised (bitsandbytes) and packed into {printable(repr(packed), 40)} "
            f"(bnb_4bit_quant_storage), of which only uint8 is edited; {_ON_LOAD}"
        )
    return _check_tensors


def _check_tensors(tensors: Tensors) -> None:
    stored = StoredTensors(tensors, {})
    if not any(_holds_4bit(info, stored) or _holds_8bit(info, stored) for info in tensors.values()):
        raise UsageError(
            f"config.json says that weights are quantised by bitsandbytes, but none of the {len(tensors)} tensors has "
            "a quant_state or an SCB; the two do not belong together"
        )
    for name, info in tensors.items():
        for end in (*_BESIDE, "SCB"):
            if not name.endswith(end):
                continue
            weight = name.removesuffix(end) + ("weight" if end == "SCB" else "")
            dtype = "I8" if end == "SCB" else "U8"
            there = tensors.get(weight)
            if there is None or there.dtype != dtype:
                had = "there is none" if there is None else f"it is {there.dtype}"
                raise UsageError(
                    f"tensor {printable(name)!r} belongs to {printable(weight)!r}, which bitsandbytes stores as "
                    f"{dtype}, but {had}; fetch the checkpoint again"
                )
            if end != "SCB" and not any(weight + state in tensors for state in STATES.values()):
                raise UsageError(
                    f"tensor {printable(weight)!r} is of bitsandbytes and has no quant_state "
                    f"({printable(weight + STATES['nf4'])!r}); fetch the checkpoint again"
                )
        if info.dtype == "I8" and not _holds_8bit(info, stored):
            raise UsageError(
                f"tensor {printable(name)!r} is I8 without the scales of bitsandbytes "
                f"({printable(name.removesuffix('weight') + 'SCB')!r}); fetch the checkpoint again"
            )


def _state(name: str, stored: StoredTensors) -> tuple[QuantState, TensorSpec]:
    """What a file says of a 4-bit weight, and the tensor in which it does."""
    kinds = [kind for kind, end in STATES.items() if name + end in stored.tensors]
    if len(kinds) != 1:
        raise UsageError(f"tensor {printable(name)!r} has two quant_states; fetch the checkpoint again")
    info = stored.tensors[name + STATES[kinds[0]]]
    if info.dtype != "U8" or len(info.shape) != 1 or info.size > LONGEST_STATE:
        raise UsageError(
            f"tensor {printable(info.name)!r} is {info.dtype} {info.shape}, and no quant_state of bitsandbytes; fetch "
            "the checkpoint again"
        )
    state = QuantState.parse(stored.read(info.name), kinds[0], info.name)
    return state, TensorSpec(info.name, info.dtype, info.shape)


def _check(wanted: TensorSpec, tensors: Tensors) -> None:
    """Refuse a tensor that is missing or of another dtype or shape."""
    info = tensors.get(wanted.name)
    if info is None or (info.dtype, info.shape) != (wanted.dtype, wanted.shape):
        had = "there is none" if info is None else f"it is {info.dtype} {info.shape}"
        raise UsageError(
            f"tensor {printable(wanted.name)!r} has to be {wanted.dtype} {wanted.shape} by what bitsandbytes says "
            f"of its matrix, but {had}; fetch the checkpoint again"
        )


BITSANDBYTES: tuple[Format, ...] = (
    Format(
        name="bitsandbytes' 4 bits",
        holds=_holds_4bit,
        storage=_storage_4bit,
        beside=tuple("{name}" + end for end in _BESIDE),
        shape=_shape_4bit,
    ),
    Format(
        name="bitsandbytes' INT8",
        codes="weight",
        parameter="weight",
        holds=_holds_8bit,
        storage=_storage_8bit,
        beside=("{stem}SCB", "{stem}weight_format"),
    ),
)
"""The entries of the table."""
