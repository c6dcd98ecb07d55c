"""The layout of a GGUF file is what transformers' reader does to it, of files written by llama.cpp's conventions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")

from tests.helpers.gguf_models import FAMILIES, gguf_tensors, small_model, write_model
from weight_edit.anatomy.derive import anatomy_with_model
from weight_edit.anatomy.disk.gguf_layout import gguf_layout
from weight_edit.anatomy.disk.gguf_reader import GgufReader
from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.disk.mtp import mtp_tensors
from weight_edit.anatomy.disk.names import DiskNames, check_nothing_left_out, names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.disk.ties import as_loaded
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.proofs.record import ProvenAnatomy


def layout_of(file: Path) -> Layout:
    opened = Checkpoint.open(file)
    assert opened.gguf is not None
    reader = GgufReader(opened.gguf)
    config = reader.config(opened.tensors)
    anatomy, real = anatomy_with_model(config)
    return gguf_layout(real, config, Stored.of(opened.tensors), reader, anatomy)


def proven(file: Path) -> ProvenAnatomy:
    return proven_anatomy(file, Stored.of(Checkpoint.open(file).tensors))


def checked(file: Path) -> tuple[ProvenAnatomy, DiskNames]:
    """What was proven of a file, after the checks of `bake` and `inspect`."""
    stored = Stored.of(Checkpoint.open(file).tensors)
    found = proven_anatomy(file, stored)
    disk = names_on_disk(found.anatomy, found.layout)
    check_nothing_left_out(found.anatomy, disk, mtp_tensors(found.anatomy, disk), stored.shapes)
    return found, disk


def in_axes(values: np.ndarray, axes: tuple[int | None, ...]) -> np.ndarray:
    """A tensor in the order of a parameter's axes, all of which are known."""
    return values.transpose([axis for axis in axes if axis is not None])


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_parameters_are_their_tensors(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    layout = layout_of(write_model(tmp_path / "model.gguf", model, kind))
    assert layout.container == "GGUF"
    assert (layout.missing, layout.mismatched, layout.extra) == ({}, {}, ())
    tensors, state = gguf_tensors(model, kind), model.state_dict()
    checked = 0
    for name, runs in layout.parameters.items():
        (first, *more) = [piece for run in runs for piece in run]
        if not more and None not in first.axes:
            expected = in_axes(tensors[first.name], first.axes) + layout.shifts.get(name, 0.0)
            assert np.array_equal(expected, state[name].numpy()), name
            checked += 1
    assert checked > len(layout.parameters) / 2


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_writer_can_be_edited_and_every_gain_read(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    file = write_model(tmp_path / "model.gguf", model, kind)
    found, disk = checked(file)
    opened, tensors, state = Checkpoint.open(file), gguf_tensors(model, kind), model.state_dict()
    for writer in found.anatomy.writers:
        ((name, axis),) = disk.edits_on_disk(writer.weight, writer.axis)
        assert tensors[name].shape[axis] == found.anatomy.d_model
        if writer.bias is not None:
            assert disk.edits_on_disk(writer.bias, writer.bias_axis)
        for norm in (writer.norm,) if writer.norm is not None else ():
            assert np.array_equal(disk.values(opened, str(norm.weight)), state[str(norm.weight)].numpy())


def test_rows_of_llamas_queries_are_in_another_order_and_its_columns_not(tmp_path: Path) -> None:
    disk = DiskNames(layout_of(write_model(tmp_path / "model.gguf", small_model("llama"), "llama")))
    query = "model.layers.1.self_attn.q_proj.weight"
    assert disk.edits_on_disk(query, 1) == [("blk.1.attn_q.weight", 1)]
    with pytest.raises(UnsupportedError, match=r"lies in 'blk\.1\.attn_q\.weight'.*another order.*along its axis 0"):
        disk.edits_on_disk(query, 0)


def test_gemmas_gains_are_stored_and_its_weights_read(tmp_path: Path) -> None:
    model = small_model("gemma2")
    file = write_model(tmp_path / "model.gguf", model, "gemma2")
    disk, norm = DiskNames(layout_of(file)), "model.layers.0.post_attention_layernorm.weight"
    assert disk.layout.shifts[norm] == -1
    weight = model.state_dict()[norm].numpy()
    assert np.array_equal(disk.values(Checkpoint.open(file), norm), weight)
    with pytest.raises(UnsupportedError, match=r"read with -1 added"):
        disk.edits_on_disk(norm, 0)


def test_stacks_of_experts_are_edited_and_fused_halves_not_along_what_was_cut(tmp_path: Path) -> None:
    disk = DiskNames(layout_of(write_model(tmp_path / "model.gguf", small_model("qwen3_moe"), "qwen3_moe")))
    experts = "model.layers.2.mlp.experts"
    assert disk.edits_on_disk(f"{experts}.down_proj", 1) == [("blk.2.ffn_down_exps.weight", 1)]
    assert disk.edits_on_disk(f"{experts}.gate_up_proj", 2) == [
        ("blk.2.ffn_gate_exps.weight", 2),
        ("blk.2.ffn_up_exps.weight", 2),
    ]
    with pytest.raises(UnsupportedError, match="axis 1"):
        disk.edits_on_disk(f"{experts}.gate_up_proj", 1)


def test_a_writer_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    model = small_model("llama")
    tensors = gguf_tensors(model, "llama")

    def refused(name: str, values: np.ndarray) -> str:
        with pytest.raises(UnsupportedError) as error:
            checked(write_model(tmp_path / "model.gguf", model, "llama", {**tensors, name: values}))
        return str(error.value)

    width = np.ones(64, np.float32)
    assert "'blk.1.attn_output.bias' [64]" in refused("blk.1.attn_output.bias", width)
    assert "'blk.0.ffn_down.scale'" in refused("blk.0.ffn_down.scale", width[:1])
    assert "'blk.2.post_ffw_norm.weight' [64]" in refused("blk.2.post_ffw_norm.weight", width)
    assert "'blk.2.ffn_down_exps.weight' [2, 64, 5]" in refused(
        "blk.2.ffn_down_exps.weight", np.ones((2, 64, 5), np.float32)
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.post_attention_norm.weight", (64,)),
        ("blk.2.layer_output_norm.weight", (64,)),
        ("blk.1.ffn_down_shexp.weight", (64, 96)),
        ("blk.1.ffn_down_exps.weight", (2, 64, 96)),
        ("blk.0.layer_output_scale.weight", (1,)),
        ("token_embd_norm.weight", (64,)),
        ("token_embd.bias", (64,)),
        ("position_embd.weight", (64, 64)),
        ("token_types.weight", (2, 64)),
        ("blk.0.unheard_of.weight", (64, 64)),
    ],
)
def test_what_may_add_to_the_stream_and_transformers_does_not_read_is_refused(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """llama.cpp uses every tensor of a file: an edit that is complete for transformers would not be for it."""
    model = small_model("llama")
    tensors = {**gguf_tensors(model, "llama"), name: np.ones(shape, np.float32)}
    file = write_model(tmp_path / "model.gguf", model, "llama", tensors)
    with pytest.raises(UnsupportedError, match=rf"'{name}' \[.*safetensors folder"):
        checked(file)


def test_tensors_of_no_parameter_are_kept(tmp_path: Path) -> None:
    model = small_model("llama")
    more = {
        "rope_freqs.weight": np.ones(12, np.float32),
        "blk.1.attn_q.bias": np.ones(96, np.float32),
        "blk.0.ffn_sub_norm.weight": np.ones(96, np.float32),
        "blk.0.ffn_gate_inp.weight": np.ones((4, 64), np.float32),
    }
    _, disk = checked(write_model(tmp_path / "model.gguf", model, "llama", {**gguf_tensors(model, "llama"), **more}))
    assert set(disk.extra) == set(more)


def test_a_writer_without_a_tensor_is_named(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("mixtral"), "mixtral")
    with pytest.raises(
        UnsupportedError, match=r"GGUF file has no tensor for 'model\.layers\.0\.mlp\.down_proj\.weight'"
    ):
        checked(file)


def test_a_writer_that_transformers_leaves_out_lies_as_it_is_multiplied(tmp_path: Path) -> None:
    # Its stacks of experts are square, so that no shape tells how they lie.
    model = small_model("gpt_oss")
    tensors = gguf_tensors(model, "gpt_oss")
    found, disk = checked(write_model(tmp_path / "model.gguf", model, "gpt_oss"))
    experts = "model.layers.1.mlp.experts"
    assert f"{experts}.gate_up_proj" in disk.layout.missing
    writers = {writer.weight: writer for writer in found.anatomy.writers}
    state, writer = model.state_dict(), writers[f"{experts}.down_proj"]
    ((name, axis),) = disk.edits_on_disk(writer.weight, writer.axis)
    assert np.array_equal(
        np.moveaxis(tensors[name], axis, -1), np.moveaxis(state[writer.weight].numpy(), writer.axis, -1)
    )
    assert disk.edits_on_disk(str(writer.bias), writer.bias_axis) == [("blk.1.ffn_down_exps.bias", 1)]
    with pytest.raises(UnsupportedError, match="no tensor"):
        disk.edits_on_disk(f"{experts}.gate_up_proj", 1)


def test_layers_of_multi_token_prediction_are_known(tmp_path: Path) -> None:
    kind = "qwen3_5_text"
    model = small_model(kind)
    tensors = gguf_tensors(model, kind)
    layer = {name.replace("blk.1.", "blk.4."): values for name, values in tensors.items() if name.startswith("blk.1.")}
    layer["blk.4.nextn.eh_proj.weight"] = np.ones((64, 128), np.float32)
    entries = {"qwen35__block_count": 5, "qwen35__nextn_predict_layers": 1}
    _, disk = checked(write_model(tmp_path / "model.gguf", model, kind, {**tensors, **layer}, **entries))
    assert disk.extra == tuple(sorted(layer))


def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("olmo2"), "olmo2")
    with pytest.raises(UnsupportedError, match=r"architecture 'olmo2'; install llama\.cpp's"):
        checked(file)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    model = small_model("qwen2")
    tensors = {**gguf_tensors(model, "qwen2"), "blk.1.ffn_down.weight": np.zeros((64, 100), np.float32)}
    found = proven(write_model(tmp_path / "model.gguf", model, "qwen2", tensors))
    with pytest.raises(UnsupportedError, match=r"'blk\.1\.ffn_down\.weight' is \(64, 100\) in the GGUF file"):
        names_on_disk(found.anatomy, found.layout)


def test_the_file_says_whether_embeddings_are_tied(tmp_path: Path) -> None:
    for tied in (True, False):
        model: Any = small_model("qwen2", tie_word_embeddings=tied)
        found = proven(write_model(tmp_path / "model.gguf", model, "qwen2"))
        assert found.anatomy.tied is tied
        assert ("lm_head.weight" in found.layout.parameters) is not tied


def test_an_unembedding_of_its_own_is_none_that_is_tied(tmp_path: Path) -> None:
    # transformers' config ties Falcon's whatever the file has; it keeps apart what differs, and llama.cpp does.
    model = small_model("falcon")
    tensors = gguf_tensors(model, "falcon")
    embedding = tensors["token_embd.weight"]
    for own, tied in ((embedding, True), (embedding + 1, False), (embedding.astype(np.float16), False)):
        file = write_model(tmp_path / "model.gguf", model, "falcon", {**tensors, "output.weight": own})
        found = proven(file)
        disk = names_on_disk(found.anatomy, found.layout)
        assert found.anatomy.tied
        assert disk.only("lm_head.weight") == "output.weight"
        assert as_loaded(found.anatomy, Checkpoint.open(file), disk).tied is tied


def test_a_reader_that_treats_numbers_differently_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("llama"), "llama")
    read = GgufReader.read

    def rounding(self: GgufReader, config: Any, tensors: Any) -> Any:
        found, bad = read(self, config, tensors)
        return {name: np.rint(values) for name, values in found.items()}, bad

    monkeypatch.setattr(GgufReader, "read", rounding)
    with pytest.raises(UnsupportedError, match="something else of random numbers"):
        layout_of(file)


def test_the_record_survives_the_cache(tmp_path: Path) -> None:
    found = proven(write_model(tmp_path / "model.gguf", small_model("gemma2"), "gemma2"))
    assert ProvenAnatomy.from_dict(found.to_dict()) == found
    assert found != replace(found, layout=replace(found.layout, shifts={}))
