"""Formats that are not edited are refused by name with what to do; those that are edited pass."""

import pytest
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from tests.helpers.checkpoint_samples import make_checkpoint
from tests.helpers.committed_verdicts import otherwise
from weight_edit.checkpoint.quantized.methods import EDITED
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.refused import METHODS, check_format, single_file
from weight_edit.checkpoint.tensor.header import DTYPE_BITS, TensorInfo
from weight_edit.errors import UnsupportedError, UsageError

PLAIN = {"a.weight": ("BF16", (4, 4))}
EIGHT = {"a.weight": ("F8_E4M3", (256, 300)), "norm.weight": ("BF16", (4,))}


def infos(layout):
    found = {}
    for name, (dtype, shape) in layout.items():
        size = DTYPE_BITS[dtype]
        for n in shape:
            size *= n
        found[name] = TensorInfo(name=name, shard="s.safetensors", dtype=dtype, shape=shape, begin=8, end=8 + size // 8)
    return found


def config(**stored):
    return {"model_type": "llama", "quantization_config": stored}


def compressed(strategy="channel", *, bits=8, kind="float", form="float-quantized", **more):
    weights = {"num_bits": bits, "type": kind, "strategy": strategy, "block_structure": more.pop("block", None)}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return config(quant_method="compressed-tensors", format=form, config_groups=groups, **more)


def refused(error, config, layout, *named):
    with pytest.raises(error) as caught:
        check_format(config, infos(layout))
    assert str(caught.value).isprintable()
    for text in named:
        assert text in str(caught.value)


PASSING = {
    "plain": ({}, PLAIN),
    "null": ({"quantization_config": None}, PLAIN),
    "integers without a method": ({}, {"a.weight": ("I8", (4, 4))}),
    "blocks": (
        config(quant_method="fp8", weight_block_size=[128, 128]),
        EIGHT | {"a.weight_scale_inv": ("F32", (2, 3))},
    ),
    "default blocks": (config(quant_method="fp8"), EIGHT | {"a.weight_scale_inv": ("BF16", (2, 3))}),
    "in text_config": (
        {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
        EIGHT | {"a.weight_scale_inv": ("F32", (2, 3))},
    ),
    "one scale": (config(quant_method="fp8"), EIGHT | {"a.weight_scale": ("F32", ())}),
    "one scale, inverse": (
        config(quant_method="fp8", weight_block_size=None),
        EIGHT | {"a.weight_scale_inv": ("F32", (1,))},
    ),
    "experts": (
        config(quant_method="fp8"),
        {
            "x.down_proj": ("F8_E4M3", (5, 256, 130)),
            "x.down_proj_scale_inv": ("F32", (5, 2, 2)),
            "x.gate_up_proj": ("F8_E4M3", (5, 64, 130)),
            "x.gate_up_proj_scale_inv": ("F32", (5, 2, 2)),
        },
    ),
    "compressed by tensor": (compressed("tensor"), EIGHT | {"a.weight_scale": ("BF16", (1,))}),
    "compressed by channel": (compressed("channel"), EIGHT | {"a.weight_scale": ("F32", (256, 1))}),
    "compressed by block": (compressed("block", block=[128, 128]), EIGHT | {"a.weight_scale": ("F32", (2, 3))}),
    "block as text": (compressed("block", block="64x100"), EIGHT | {"a.weight_scale": ("F32", (4, 3))}),
    "mxfp4": (
        config(quant_method="mxfp4"),
        {"x.down_proj_blocks": ("U8", (2, 6, 3, 16)), "x.down_proj_scales": ("U8", (2, 6, 3))},
    ),
}


@pytest.mark.parametrize(("given", "layout"), PASSING.values(), ids=PASSING)
def test_what_is_edited_passes(given, layout):
    check_format(given, infos(layout))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_known_method_is_refused_by_name(method):
    refused(UnsupportedError, config(quant_method=method), PLAIN, method, METHODS[method].name, "give the")


def test_every_method_of_transformers_is_known():
    unknown = sorted(set(AUTO_QUANTIZER_MAPPING) - {*METHODS, *EDITED})
    if unknown:
        otherwise(f"methods of quantisation that have no name here: {', '.join(unknown)}")


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ({"quant_method": "mystery"}, "an unknown method, 'mystery'"),
        ({"quant_method": ["x"]}, "an unknown method"),
        ({"bits": 4}, "an unnamed method"),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, "'fp4'"),
    ],
)
def test_unknown_methods(stored, named):
    refused(UnsupportedError, config(**stored), PLAIN, named, "quantised from")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("a.W_q", "HQQ"),
        ("a.weight._data", "quanto"),
    ],
)
def test_tensors_betray_a_method_that_the_config_does_not_name(name, method):
    refused(UnsupportedError, {}, PLAIN | {name: ("U8", (4,))}, name, method)


@pytest.mark.parametrize(
    ("given", "layout", "named"),
    [
        (compressed(form="pack-quantized", bits=9, kind="int", strategy="group"), PLAIN, "pack-quantized: 9 bits"),
        (compressed(form="pack-quantized", bits=4, kind="int", strategy="block"), PLAIN, "by block"),
        (compressed(form="marlin-24", bits=4, kind="int", strategy="group"), PLAIN, "marlin-24"),
        (compressed(), PLAIN | {"a.weight_packed": ("I32", (4, 1))}, "a.weight_packed"),
        (compressed(form="int-quantized", bits=4, kind="int"), PLAIN, "int-quantized: 4 bits"),
        (config(quant_method="gptq", bits=4, checkpoint_format="marlin"), PLAIN, "'marlin'"),
        (config(quant_method="gptq", bits=4, is_marlin_format=True), PLAIN, "'marlin'"),
        (config(quant_method="gptq", bits=5), PLAIN, "bits 5"),
        (config(quant_method="awq", version="gemv"), PLAIN, "'gemv'"),
        (config(quant_method="awq", backend="llm-awq"), PLAIN, "'llm-awq'"),
        (config(quant_method="awq", bits=8), PLAIN, "bits 8"),
        (compressed("group"), PLAIN, "by group"),
        (compressed(bits=4), PLAIN, "4 bits"),
        (compressed(sparsity_config={"format": "sparse-24-bitmask"}), PLAIN, "sparse-24-bitmask"),
        (compressed(transform_config={"config_groups": {"u": {}}}), PLAIN, "transforms"),
        (config(quant_method="fp8"), {"a.weight": ("F8_E5M2", (4, 4))}, "F8_E5M2"),
        (config(quant_method="fp8"), EIGHT | {"a.weight_scale_inv": ("I32", (2, 3))}, "I32"),
    ],
)
def test_neighbours_of_what_is_edited_are_refused(given, layout, named):
    refused(UnsupportedError, given, layout, named)


@pytest.mark.parametrize(
    ("given", "layout", "named"),
    [
        ({"quantization_config": "gptq"}, PLAIN, "must be an object"),
        (config(quant_method="fp8"), PLAIN, "none of the 1 tensors is"),
        (config(quant_method="fp8"), EIGHT, "'a.weight' is F8_E4M3 without a scale"),
        (config(quant_method="fp8"), EIGHT | {"a.weight_scale_inv": ("F32", (3, 3))}, "'a.weight_scale_inv' is (3, 3)"),
        (config(quant_method="fp8"), EIGHT | {"a.weight_scale_inv": ("F32", ())}, "no scale by block"),
        (config(quant_method="fp8"), EIGHT | {"a.weight_scale": ("F32", (2, 3))}, "no scale by channel or tensor"),
        (config(quant_method="fp8", weight_block_size=[128]), EIGHT, "weight_block_size is [128]"),
        (config(quant_method="fp8", weight_block_size=[0, 1]), EIGHT, "weight_block_size is [0, 1]"),
        (config(quant_method="fp8"), {"b": ("F8_E4M3", (4,)), "b_scale_inv": ("F32", (4,))}, "'b_scale_inv'"),
        (compressed(), PLAIN, "none of the 1 tensors is"),
        (compressed("tensor"), EIGHT | {"a.weight_scale": ("F32", (256, 1))}, "no scale by tensor"),
        (compressed("block", block="x"), EIGHT, "block_structure is 'x'"),
        (compressed("block"), EIGHT, "block_structure is None"),
        (config(quant_method="compressed-tensors"), EIGHT, "config_groups"),
        (config(quant_method="compressed-tensors", config_groups={"g": {"weights": 3}}), EIGHT, "weights of a group"),
        ({}, EIGHT, "'a.weight' is quantised (F8_E4M3)"),
        ({}, {"x_blocks": ("U8", (2, 1, 16)), "x_scales": ("U8", (2, 1))}, "'x_blocks' is quantised"),
        (config(quant_method="mxfp4"), PLAIN, "named *_blocks"),
        (config(quant_method="mxfp4"), {"x_blocks": ("U8", (2, 1, 16))}, "'x_blocks' is MXFP4 without a scale"),
        (
            config(quant_method="mxfp4"),
            {"x_blocks": ("U8", (2, 1, 16)), "x_scales": ("U8", (2, 2))},
            "'x_blocks' is (2, 1, 16) and its scales are (2, 2)",
        ),
        (
            config(quant_method="mxfp4"),
            {"x_blocks": ("U8", (2, 1, 8)), "x_scales": ("U8", (2, 1))},
            "'x_blocks' is (2, 1, 8)",
        ),
        (
            config(quant_method="mxfp4"),
            {"x_blocks": ("BF16", (2, 1, 16)), "x_scales": ("U8", (2, 1))},
            "must be U8",
        ),
        (
            config(quant_method="mxfp4"),
            {"x_blocks": ("U8", (2, 1, 16)), "x_scales": ("U8", (2, 1)), "y_scales": ("U8", (2,))},
            "'y_scales' has no MXFP4 blocks",
        ),
    ],
)
def test_a_config_that_disagrees_with_the_tensors_names_one(given, layout, named):
    refused(UsageError, given, layout, named)


FOLDERS = [
    (["config.json", "pytorch_model.bin"], UnsupportedError, ("pytorch_model.bin", "save_pretrained")),
    (["config.json", "pytorch_model-00001-of-00002.bin"], UnsupportedError, ("pickled", "convert them once")),
    (["config.json", "model.pt"], UnsupportedError, ("pickled", "model.pt")),
    (["config.json", "consolidated.00.pth", "params.json"], UnsupportedError, ("pickled", "consolidated.00.pth")),
    (["config.json", "model.ckpt"], UnsupportedError, ("pickled",)),
    (
        ["a-q4.gguf", "b-q4.gguf", "c-q8.gguf"],
        UsageError,
        ("several GGUF models", "a-q4.gguf, b-q4.gguf and 1 more", "give the file itself"),
    ),
    (["config.json", "a.gguf"], UsageError, ("GGUF alone (a.gguf)", "give the file itself", "/a.gguf")),
    (["config.json", "pytorch_model.bin", "a.gguf"], UsageError, ("GGUF alone (a.gguf)",)),
    (["config.json", "a.ggml"], UnsupportedError, ("GGML (a.ggml)", "give the model's GGUF file")),
    (["a-00001-of-00002.gguf"], UsageError, ("lacks a-00002-of-00002.gguf",)),
    (["config.json", "onnx/model.onnx"], UnsupportedError, ("ONNX", "safetensors")),
    (["config.json", "tf_model.h5"], UnsupportedError, ("TensorFlow", "tf_model.h5")),
    (["config.json", "flax_model.msgpack"], UnsupportedError, ("Flax", "flax_model.msgpack")),
    (["adapter_config.json", "adapter_model.safetensors"], UnsupportedError, ("adapter", "merge_and_unload", "base")),
    (["adapter_config.json"], UnsupportedError, ("adapter",)),
    (["config.json", "adapter_config.json", "adapter_model.bin"], UnsupportedError, ("adapter",)),
    (["config.json", "consolidated.safetensors"], UsageError, ("consolidated.safetensors", "transformers_weights")),
    (["config.json"], UsageError, ("neither model.safetensors nor",)),
    (["README.md"], UsageError, ("has no config.json",)),
    (["model.safetensors"], UsageError, ("has no config.json",)),
]


@pytest.mark.parametrize(("files", "error", "named"), FOLDERS, ids=[" ".join(files) for files, _, _ in FOLDERS])
def test_folders_without_weights_are_refused_by_what_they_have(tmp_path, files, error, named):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(error) as caught:
        Checkpoint.open(tmp_path)
    assert str(caught.value).isprintable()
    assert str(tmp_path) in str(caught.value)
    for text in named:
        assert text in str(caught.value)


def test_an_adapter_beside_a_whole_model_is_one_more_file(tmp_path):
    folder = make_checkpoint(tmp_path / "m", extras=False)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_text("{}")
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.shards == ("model.safetensors",)
    assert checkpoint.other_weights == ("adapter_model.safetensors",)


def test_a_file_is_no_model():
    assert isinstance(single_file("x/model-Q4.ggml"), UnsupportedError)
    assert "give the model's GGUF file" in str(single_file("model.ggml"))
    assert isinstance(single_file("model.safetensors"), UsageError)
    assert "or a GGUF file" in str(single_file("model.safetensors"))
