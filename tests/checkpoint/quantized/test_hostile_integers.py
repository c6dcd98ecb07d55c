"""GPTQ, AWQ and integers of compressed-tensors that are damaged or hostile: one line that names the tensor."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.helpers.integer_samples import IntegerSample
from tests.helpers.quantized_samples import numbers
from weight_edit.checkpoint.source.refused import check_format
from weight_edit.errors import UnsupportedError, UsageError, WeightEditError

Change = Callable[[IntegerSample], None]


def said(sample: IntegerSample, kind: type[WeightEditError]) -> str:
    """What is said of a sample when it is opened, or read."""

    def opened() -> None:
        check_format({"quantization_config": sample.config}, sample.infos)
        numbers(sample.storage(), sample.raw)

    with pytest.raises(kind) as caught:
        opened()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def put(key: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda sample: sample.put(f"x.{key}", make(sample.tensor(key)).contiguous())


def without(key: str) -> Change:
    def change(sample: IntegerSample) -> None:
        del sample.infos[f"x.{key}"], sample.raw[f"x.{key}"]

    return change


def config(**entries: Any) -> Change:
    return lambda sample: sample.config.update(entries)


def weights(**entries: Any) -> Change:
    return lambda sample: sample.config["config_groups"]["group_0"]["weights"].update(entries)


def nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = float("nan")
    return tensor


def infinite(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[0] = -float("inf")
    return tensor


CASES: dict[str, tuple[str, Change, str]] = {
    "gptq without scales": ("gptq", without("scales"), "has no 'x.scales'"),
    "gptq without zero points": ("gptq", without("qzeros"), "has no 'x.qzeros'"),
    "gptq without codes": ("gptq", without("qweight"), "none of the 3 tensors is named *.qweight"),
    "gptq, groups wrong": (
        "gptq",
        put("scales", lambda t: t[:3]),
        "'x.scales' is (3, 64), which fits no weight of 128",
    ),
    "gptq, zero points of fewer groups": (
        "gptq",
        put("qzeros", lambda t: t[:3]),
        "'x.qzeros' is (3, 8), but the scales",
    ),
    "gptq, zero points of no bits": (
        "gptq",
        put("qzeros", lambda t: t[:, :7]),
        "'x.qzeros' is (4, 7), which are no zero",
    ),
    "gptq, scales wide": ("gptq", put("scales", lambda t: t[:, :32]), "'x.scales' is (4, 32)"),
    "gptq, integer scales": ("gptq", put("scales", lambda t: t.int()), "'x.scales' is I32, where scales are F16"),
    "gptq, codes of 64 bits": ("gptq", put("qweight", lambda t: t.long()), "'x.qweight' is I64, where codes are I32"),
    "gptq, other group size": ("gptq", config(group_size=64), "'x.scales' is (4, 64)"),
    "gptq, NaN": ("gptq", put("scales", nan), "'x.scales' has 1 scales that are not finite"),
    "gptq, infinite": ("gptq-one-group", put("scales", infinite), "'x.scales' has 1 scales that are not finite"),
    "gptq, index too long": ("gptq", put("g_idx", lambda t: t[:-1]), "'x.g_idx' is I32 (127,)"),
    "gptq, index of bytes": ("gptq", put("g_idx", lambda t: t.byte()), "'x.g_idx' is U8"),
    "gptq, another order": (
        "gptq",
        put("g_idx", lambda t: t.flip(0)),
        "orders the inputs otherwise than in groups of 32",
    ),
    "act-order, out of range": ("gptq-act-order", put("g_idx", lambda t: t + 1), "none of the 4 groups"),
    "act-order, negative": ("gptq-act-order", put("g_idx", lambda t: t - 1), "none of the 4 groups"),
    "act-order without index": (
        "gptq-act-order",
        without("g_idx"),
        "has no 'x.g_idx', though config.json says desc_act",
    ),
    "awq without scales": ("awq", without("scales"), "has no 'x.scales'"),
    "awq without zero points": ("awq", without("qzeros"), "has no 'x.qzeros'"),
    "awq, groups wrong": ("awq", put("scales", lambda t: t[1:]), "'x.scales' is (3, 64)"),
    "awq, zero points narrow": ("awq", put("qzeros", lambda t: t[:, 1:]), "'x.qzeros' is (4, 7)"),
    "awq, NaN": ("awq", put("scales", nan), "'x.scales' has 1 scales that are not finite"),
    "pack without scales": ("pack", without("weight_scale"), "has no 'x.weight_scale'"),
    "pack without shape": ("pack", without("weight_shape"), "has no 'x.weight_shape'"),
    "pack, shape too large": ("pack", put("weight_shape", lambda t: t * 1000), "says 64000 by 128000"),
    "pack, shape of nothing": ("pack", put("weight_shape", lambda t: t * 0), "says 0 by 0"),
    "pack, negative shape": ("pack", put("weight_shape", lambda t: -t), "says -64 by -128"),
    "pack, shape of other bits": (
        "pack",
        put("weight_shape", lambda t: t - torch.tensor([0, 8])),
        "no 64 by 120 numbers",
    ),
    "pack, shape of floats": ("pack", put("weight_shape", lambda t: t.double()), "'x.weight_shape' is F64"),
    "pack, shape of three": ("pack", put("weight_shape", lambda t: t.repeat(2)[:3]), "'x.weight_shape' is I64 (3,)"),
    "pack, groups wrong": ("pack", put("weight_scale", lambda t: t[:, :3]), "'x.weight_scale' is (64, 3)"),
    "pack, other group size": ("pack", weights(group_size=64), "'x.weight_scale' is (64, 4)"),
    "pack, zero points short": (
        "pack-asymmetric",
        put("weight_zero_point", lambda t: t[:-1]),
        "'x.weight_zero_point' is I32 (7, 4), where zero points are I8 (64, 4) or I32 (8, 4)",
    ),
    "pack without zero points": (
        "pack-asymmetric",
        without("weight_zero_point"),
        "has no 'x.weight_zero_point', though config.json says symmetric false",
    ),
    "int8 without zero points": (
        "int8-asymmetric",
        without("weight_zero_point"),
        "has no 'x.weight_zero_point', though config.json says symmetric false",
    ),
    "pack, NaN": ("pack", put("weight_scale", nan), "'x.weight_scale' has 1 scales that are not finite"),
    "int8 without scales": ("int8", without("weight_scale"), "quantised without 'x.weight_scale'"),
    "int8, scales of 8 bits": ("int8", put("weight_scale", lambda t: t.to(torch.float8_e4m3fn)), "is F8_E4M3, where"),
    "int8, scales short": ("int8", put("weight_scale", lambda t: t[1:]), "'x.weight_scale' is (63, 1)"),
    "int8, zero points wide": (
        "int8-asymmetric",
        put("weight_zero_point", lambda t: t.int()),
        "'x.weight_zero_point' is I32 (64, 1)",
    ),
    "int8, infinite": (
        "int8-tensor",
        put("weight_scale", infinite),
        "'x.weight_scale' has 1 scales that are not finite",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_damaged_tensors_are_named(case: str) -> None:
    name, change, message = CASES[case]
    sample = IntegerSample.of(name)
    change(sample)
    assert message in said(sample, UsageError)


@pytest.mark.parametrize(
    ("name", "shape"), [("gptq", (2, 8, 64)), ("awq", (2, 64, 8)), ("pack", (0, 16)), ("int8", (128, 64, 1))]
)
def test_only_matrices_are_edited(name: str, shape: tuple[int, ...]) -> None:
    sample = IntegerSample.of(name)
    key = {"gptq": "x.qweight", "awq": "x.qweight", "pack": "x.weight_packed"}.get(name, "x.weight")
    sample.put(key, torch.zeros(shape, dtype=torch.int8 if name == "int8" else torch.int32))
    assert "only matrices are edited" in said(sample, UnsupportedError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config(config_groups=[]), "needs config_groups"),
        (weights(num_bits="4"), "pack-quantized: 4 bits"),
        (weights(num_bits=True), "pack-quantized: True bits"),
        (weights(num_bits=16), "pack-quantized: 16 bits"),
        (weights(type="float"), "4 bits, float"),
        (weights(strategy="token"), "by token"),
        (config(sparsity_config={"format": "sparse-bitmask"}), "sparse: sparse-bitmask"),
        (config(transform_config={"config_groups": {"u": {}}}), "with transforms"),
    ],
)
def test_configs_of_compressed_tensors_that_are_not_edited(change: Change, message: str) -> None:
    sample = IntegerSample.of("pack")
    change(sample)
    assert message in said(sample, WeightEditError)


def test_an_index_of_groups_that_compressed_tensors_wrote_once() -> None:
    """Its older releases put inputs into groups by an index, as GPTQ's act-order does."""
    sample = IntegerSample.of("pack-asymmetric")
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    index = (torch.arange(128) // 32)[order].int()
    sample.put("x.weight_g_idx", index)
    plain = IntegerSample.of("pack-asymmetric")
    codes = torch.from_numpy(plain.storage().codes(plain.strip(plain.storage(), 0, 64), 64, 0, 128).copy()).double()
    scales = sample.tensor("weight_scale").double()
    packed = sample.tensor("weight_zero_point")
    zeros = torch.stack([(packed >> shift) & 15 for shift in range(0, 32, 4)], 1).reshape(64, 4).double()
    wanted = (codes - zeros[:, index.long()]) * scales[:, index.long()]
    found = torch.from_numpy(numbers(sample.storage(), sample.raw)[0])
    assert torch.equal(found, wanted)
    sample.put("x.weight_g_idx", index + 1)
    assert "none of the 4 groups" in said(sample, UsageError)
