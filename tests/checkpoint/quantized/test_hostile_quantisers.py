"""NVFP4 and bitsandbytes that are damaged, hostile or of a kind that is not edited: one line that names it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.quantiser_samples import Sample
from tests.helpers.quantized_samples import numbers
from weight_edit.checkpoint.quantized.bnb_state import LONGEST_STATE, QuantState
from weight_edit.checkpoint.source.refused import check_config, check_format
from weight_edit.errors import UnsupportedError, UsageError, WeightEditError

STATE = "weight.quant_state.bitsandbytes__nf4"
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "nvfp4-pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
}


def said(sample: Sample, kind: type[WeightEditError] = UsageError, config: dict[str, Any] | None = None) -> str:
    """What is said of a sample when it is opened, or read."""

    def opened() -> None:
        if config is not None:
            check_format({"quantization_config": config}, sample.infos)
        numbers(sample.storage(), sample.raw)

    with pytest.raises(kind) as caught:
        opened()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def with_state(**changes: Any) -> Sample:
    """NF4 with other entries in its quant_state; None takes one out."""
    sample = Sample.of("nf4-nested")
    state = json.loads(sample.raw[STATE].tobytes()) | changes
    return with_text(json.dumps({key: value for key, value in state.items() if value is not None}).encode(), sample)


def with_text(text: bytes, sample: Sample | None = None) -> Sample:
    sample = sample or Sample.of("nf4-nested")
    sample.put(STATE, torch.tensor(list(text), dtype=torch.uint8))
    return sample


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant_type": "fp4"}, "quant_type is 'fp4'"),
        ({"blocksize": 48}, "blocksize is 48"),
        ({"blocksize": True}, "blocksize is True"),
        ({"blocksize": -64}, "blocksize is -64"),
        ({"dtype": "complex64"}, "dtype is 'complex64'"),
        ({"dtype": ["float32"]}, "dtype is "),
        ({"shape": [20, 0]}, "shape is "),
        ({"shape": "20"}, "shape is '20'"),
        ({"shape": [2**40, 2**40]}, "shape is "),
        ({"shape": [20.0, 128]}, "shape is "),
        ({"nested_offset": "1"}, "nested_offset is '1'"),
        ({"nested_offset": 1e300}, "nested_offset is 1e[+]300"),
        ({"nested_blocksize": 64}, "nested_blocksize is 64"),
        ({"nested_dtype": "float16"}, "nested_dtype is 'float16'"),
        ({"nested_dtype": None}, "and nothing else"),
        ({"code": "import os"}, "and nothing else"),
    ],
)
def test_a_quant_state_that_is_not_what_bitsandbytes_writes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        with_state(**changes).storage()
    assert STATE in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[]", b"null", b'{"a": 1, "a": 2}', b'{"blocksize": NaN}', b"[" * 4000, b'"' + b"9" * 3000],
)
def test_a_quant_state_that_is_no_json(text: bytes) -> None:
    assert STATE in said(with_text(text))


def test_a_quant_state_is_bounded_before_it_is_read() -> None:
    sample = with_text(b" " * (LONGEST_STATE + 1))
    assert "no quant_state" in said(sample)
    with pytest.raises(UsageError, match="too many"):
        QuantState.parse(b" " * (LONGEST_STATE + 1), "nf4", "q")


def test_other_than_matrices_are_not_edited() -> None:
    with pytest.raises(UnsupportedError, match="only matrices are edited"):
        with_state(shape=[20, 4, 32]).storage()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        # The tensors no longer have the sizes that follow.
        ({"shape": [20, 64]}, "weight"),
        ({"shape": [1 << 30, 1 << 30]}, "weight"),
        ({"blocksize": 128}, "weight.absmax"),
        ({"nested_offset": None, "nested_blocksize": None, "nested_dtype": None}, "weight.absmax"),
    ],
)
def test_sizes_that_do_not_follow_from_the_quant_state(changes: dict[str, Any], named: str) -> None:
    assert f"tensor '{named}' has to be" in said(with_state(**changes))


def test_rows_that_come_together_with_blocks_too_late_are_not_edited() -> None:
    sample = with_state(shape=[2560, 1], blocksize=4096)
    sample.put("weight.absmax", torch.zeros(1, dtype=torch.uint8))
    assert sample.storage().row_step == 4096
    wide = QuantState(kind="nf4", shape=(4096, (1 << 15) + 1), block=4096, dtype="float32", offset=None)
    sample = Sample.of("nf4")
    text = {"quant_type": "nf4", "blocksize": 4096, "dtype": "float32", "shape": list(wide.shape)}
    with_text(json.dumps(text).encode(), sample)
    infos = sample.infos
    half = 2048 * ((1 << 15) + 1)
    for name, dtype, shape in (("weight", "U8", (half, 1)), ("weight.absmax", "F32", (32769,))):
        infos[name] = type(infos[name])(name=name, shard="s", dtype=dtype, shape=shape, begin=0, end=0)
    with pytest.raises(UnsupportedError, match="'weight': 4096 rows of 32769 numbers share blocks"):
        sample.storage()


def put_float(name: str, value: float) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        sample.raw[name].view("<f4")[0] = value

    return change


def put_byte(name: str, value: int) -> Callable[[Sample], None]:
    def change(sample: Sample) -> None:
        sample.raw[name][1] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("nf4", put_float("weight.absmax", float("nan")), "'weight.absmax' has 1 scales"),
        ("nf4", put_float("weight.absmax", -1.0), "'weight.absmax' has 1 scales"),
        ("nf4", put_float("weight.quant_map", 0.5), "'weight.quant_map' is not the table"),
        ("nf4", put_float("weight.quant_map", float("nan")), "'weight.quant_map' is not the table"),
        ("nf4-nested", put_float("weight.nested_absmax", float("inf")), "'weight.nested_absmax' has 1 scales"),
        ("nf4-nested", put_float("weight.nested_quant_map", float("nan")), "'weight.nested_quant_map' has levels"),
        ("fp4-nested", put_float("weight.nested_quant_map", 0.5), "'weight.nested_quant_map' has levels"),
        ("int8", put_float("SCB", float("inf")), "'SCB' has 1 scales"),
        ("int8", put_float("SCB", -0.5), "'SCB' has 1 scales"),
        ("nvfp4-modelopt", put_float("weight_scale_2", float("nan")), "'weight_scale_2' has 1 scales"),
        ("nvfp4-modelopt", put_float("weight_scale_2", 0.0), "'weight_scale_2' has 1 scales"),
        ("nvfp4-compressed", put_float("weight_global_scale", -2.0), "'weight_global_scale' has 1 scales"),
        ("nvfp4-compressed", put_byte("weight_scale", 0x7F), "'weight_scale' has 1 scales"),
        ("nvfp4-modelopt", put_byte("weight_scale", 0xB8), "'weight_scale' has 1 scales"),
    ],
)
def test_scales_that_are_no_scales(name: str, change: Callable[[Sample], None], named: str) -> None:
    sample = Sample.of(name)
    change(sample)
    assert named in said(sample)


@pytest.mark.parametrize(
    ("name", "config", "tensor", "other", "named"),
    [
        ("nf4", BNB, "weight", torch.zeros(64, 10, dtype=torch.uint8), "'weight' has to be U8 (1280, 1)"),
        ("nf4", BNB, "weight.absmax", torch.zeros(39), "'weight.absmax' has to be F32 (40,)"),
        ("nf4", BNB, "weight.absmax", torch.zeros(40).half(), "'weight.absmax' has to be F32 (40,)"),
        ("nf4", BNB, "weight.absmax", None, "'weight.absmax' has to be F32 (40,) "),
        ("nf4", BNB, "weight.quant_map", torch.zeros(17), "'weight.quant_map' has to be F32 (16,)"),
        ("nf4-nested", BNB, "weight.nested_quant_map", torch.zeros(255), "'weight.nested_quant_map' has to be F32"),
        ("nf4", BNB, STATE, None, "none of the 3 tensors has a quant_state or an SCB"),
        ("nf4", BNB, STATE, torch.zeros(3), "no quant_state"),
        ("int8", BNB, "SCB", torch.zeros(19), "'SCB' has to be F32 (20,)"),
        ("nvfp4-modelopt", MODELOPT, "weight_scale", None, "there is no 'weight_scale'"),
        ("nvfp4-modelopt", MODELOPT, "weight", torch.zeros(20, 96), "'weight' is F32, where NVFP4 has U8"),
        ("nvfp4-modelopt", MODELOPT, "weight_scale_2", torch.zeros(2), "'weight_scale_2' is (2,)"),
        ("nvfp4-modelopt", MODELOPT, "weight_scale_2", torch.zeros(1).half(), "is F16, where NVFP4 has F32"),
        (
            *("nvfp4-compressed", COMPRESSED, "weight_packed", torch.zeros(20, 40, dtype=torch.uint8)),
            "'weight_packed' is (20, 40) and 'weight_scale' is (20, 6)",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    name: str, config: dict[str, Any], tensor: str, other: torch.Tensor | None, named: str
) -> None:
    sample = Sample.of(name)
    if other is None:
        del sample.infos[tensor]
    else:
        sample.put(tensor, other)
    assert named in said(sample, config=config)


def test_an_int8_matrix_in_another_order_is_not_edited() -> None:
    sample = Sample.of("int8")
    sample.put("weight_format", torch.tensor(1, dtype=torch.uint8))
    assert "does not lie by rows" in said(sample, UnsupportedError)


def test_fused_experts_with_groups_along_their_middle_axis_are_not_edited() -> None:
    sample = Sample.of("nvfp4-modelopt")
    scale = torch.ones(2, 6, 20).to(torch.float8_e4m3fn)
    sample.put("weight", torch.zeros(2, 48, 20, dtype=torch.uint8))
    sample.put("weight_scale", scale)
    assert "groups of 16 along axis 1" in said(sample, UnsupportedError, MODELOPT)


@pytest.mark.parametrize("whole", [torch.tensor(0.5), torch.tensor([[0.5], [0.25], [2.0]])])
def test_fused_experts_have_a_scale_each_or_one(whole: torch.Tensor) -> None:
    one = Sample.of("nvfp4-modelopt")
    sample = Sample.of("nvfp4-modelopt")
    for name, (dtype, shape) in {"weight": (torch.uint8, (20, 48)), "weight_scale": (torch.uint8, (20, 6))}.items():
        tensor = torch.from_numpy(one.raw[name]).view(dtype).reshape(shape)
        stacked = torch.stack([tensor] * 3)
        sample.put(name, stacked if name == "weight" else stacked.view(torch.float8_e4m3fn))
    sample.put("weight_scale_2", whole)
    wanted = one.wanted.double().numpy() / float(one.raw["weight_scale_2"].view("<f4")[0])
    found = numbers(sample.storage(), sample.raw)
    for expert, scale in zip(found, whole.flatten().tolist() if whole.ndim else [0.5] * 3, strict=True):
        assert np.allclose(expert, wanted * scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**BNB, "bnb_4bit_quant_storage": "bfloat16"}, "packed into 'bfloat16'"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "float32"}, "packed into 'float32'"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}, "modelopt: NVFP4_AWQ"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "W4A8_AWQ"}}, "modelopt: W4A8_AWQ"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "modelopt: MIXED_PRECISION"),
        ({"quant_method": "modelopt", "quant_algo": ["NVFP4"]}, "modelopt: "),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {"quant_algo": "NVFP4"}, "b": {"quant_algo": "INT4_AWQ"}},
            },
            "modelopt: INT4_AWQ",
        ),
        (
            {**COMPRESSED, "config_groups": {"g": {"weights": {"num_bits": 4, "type": "float", "group_size": 32}}}},
            "groups of 32",
        ),
    ],
)
def test_other_kinds_are_refused_by_the_config_alone(config: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedError, match="quantised") as caught:
        check_config({"quantization_config": config})
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["nf4", "fp4-nested", "int8", "nvfp4-modelopt", "nvfp4-compressed"])
def test_tensors_that_the_config_does_not_declare(name: str) -> None:
    infos = {f"x.{info.name}": info for info in Sample.of(name).infos.values()}
    with pytest.raises(UsageError, match=r"quantised.*fetch the model's own config\.json"):
        check_format({}, infos)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x.weight",), "'x.weight' is of bitsandbytes and has no quant_state"),
        (("x.weight.absmax",), "'x.weight.absmax' belongs to 'x.weight', which .* U8, but there is none"),
        (("x.SCB",), "'x.SCB' belongs to 'x.weight', which bitsandbytes stores as I8, but there is none"),
    ],
)
def test_one_module_of_many_that_lacks_a_part(names: tuple[str, ...], message: str) -> None:
    infos = Sample.of("nf4").infos
    others = {f"x.{key}": info for key, info in infos.items() if key != STATE}
    more = {name: others.get(name, infos["weight.absmax"]) for name in names}
    if names == ("x.weight",):
        more = others
    with pytest.raises(UsageError, match=message):
        check_format({"quantization_config": BNB}, infos | more)


@pytest.mark.parametrize("config", [BNB, MODELOPT, {"quant_method": "modelopt", "quant_algo": "FP8"}])
def test_a_config_without_its_tensors(config: dict[str, Any]) -> None:
    infos = {name: info for name, info in Sample.of("nf4").infos.items() if name == "weight.quant_map"}
    with pytest.raises(UsageError, match="do not belong together"):
        check_format({"quantization_config": config}, infos)
