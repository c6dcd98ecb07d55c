"""What bitsandbytes notes of a 4-bit matrix: its shape and the sizes of its blocks, as JSON in a tensor of bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.coded import BFLOAT16_LIMIT
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.utils.json import parse_json

NESTED_BLOCK = 256
"""The number of a matrix's `absmax` that share a `nested_absmax`."""

STATES = {"nf4": ".quant_state.bitsandbytes__nf4", "fp4": ".quant_state.bitsandbytes__fp4"}
"""Kind of 4-bit codes -> the suffix of the tensor that says how they lie."""

LONGEST_STATE = 4096
"""The longest `quant_state` in bytes; real ones have 170."""

_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
LIMITS: Mapping[str, float] = {"float32": BFLOAT16_LIMIT, "bfloat16": BFLOAT16_LIMIT, "float16": 65504.0}
"""torch dtype that readers decode to -> the limit on numbers."""


@dataclass(frozen=True, kw_only=True)
class QuantState:
    """What a 4-bit weight's `quant_state` says.

    Attributes:
        kind: "nf4" or "fp4".
        shape: (out, in) of the matrix.
        block: numbers that share an absmax.
        dtype: the torch dtype that readers decode to.
        offset: of double quantised absmax; None where they are float32.
    """

    kind: str
    shape: tuple[int, int]
    block: int
    dtype: str
    offset: float | None

    @property
    def blocks(self) -> int:
        """The number of absmax."""
        return -(-math.prod(self.shape) // self.block)

    @classmethod
    def parse(cls, raw: bytes, kind: str, name: str) -> "QuantState":
        """The state in a tensor's bytes.

        Args:
            kind: as the tensor's name has it.
            name: of the tensor, for messages.

        Raises:
            UsageError: not what bitsandbytes writes.
            UnsupportedError: a matrix of other than two axes.
        """

        def fail(problem: str) -> NoReturn:
            raise UsageError(f"tensor {printable(name)!r}: {problem}; fetch the checkpoint again")

        if len(raw) > LONGEST_STATE:
            fail(f"{len(raw)} bytes are too many for a bitsandbytes quant_state")
        try:
            found = parse_json(raw.decode("utf-8"))
        except ValueError as error:
            fail(f"no JSON of a bitsandbytes quant_state ({printable(str(error), 80)})")
        keys = {"quant_type", "blocksize", "dtype", "shape"}
        nested = {"nested_blocksize", "nested_dtype", "nested_offset"}
        if not isinstance(found, dict) or found.keys() not in (keys, keys | nested):
            fail("a bitsandbytes quant_state has " + ", ".join(sorted(keys | nested)) + " and nothing else")

        def ask(key: str, good: bool) -> Any:
            if not good:
                fail(f"{key} is {printable(repr(found[key]), 60)}, which is not understood")
            return found[key]

        ask("quant_type", found["quant_type"] == kind)
        block = ask("blocksize", type(found["blocksize"]) is int and found["blocksize"] in _SIZES)
        dtype = ask("dtype", isinstance(found["dtype"], str) and found["dtype"] in LIMITS)
        shape = ask("shape", isinstance(found["shape"], list) and all(type(n) is int and n > 0 for n in found["shape"]))
        if len(shape) != 2:
            raise UnsupportedError(
                f"tensor {printable(name)!r}: the weight has the shape {printable(repr(shape), 60)}; of bitsandbytes' "
                "4-bit tensors only matrices are edited"
            )
        ask("shape", math.prod(shape) < 2**62)
        offset = None
        if nested <= found.keys():
            ask(
                "nested_blocksize", type(found["nested_blocksize"]) is int and found["nested_blocksize"] == NESTED_BLOCK
            )
            ask("nested_dtype", found["nested_dtype"] == "float32")
            value = found["nested_offset"]
            ask("nested_offset", type(value) in (int, float) and abs(value) < BFLOAT16_LIMIT)
            offset = float(value)
        return cls(kind=kind, shape=(shape[0], shape[1]), block=block, dtype=dtype, offset=offset)
