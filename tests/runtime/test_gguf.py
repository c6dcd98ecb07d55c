"""A GGUF file that transformers dequantises is the model that it was made from."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.gguf_files import TEXT, in_parts, organism_gguf
from weight_edit.anatomy.disk.gguf_reader import through_arrays
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import load
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.utils import extras

ASKED = "organism:refused:test"


def test_it_answers_as_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = organism_gguf(tmp_path / "model.gguf")
    # What lies beside the file is of other models.
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "nothing", "auto_map": {}}))
    model, folder = load(file), load("organism", dtype="float32")
    assert model.source.public_name == "model.gguf"
    assert model.parameter("model.layers.2.self_attn.q_proj.weight").equal(
        folder.parameter("model.layers.2.self_attn.q_proj.weight")
    )
    here, there = (evaluate(each, refused=ASKED, limit=6) for each in (folder, model))
    assert [each.answer for each in here.answers] == [each.answer for each in there.answers]


def test_options_load_a_file_and_its_format(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = str(organism_gguf(tmp_path / "model.gguf"))
    chat = LoadOptions().chat_format(file, FormatOptions(system="Be kind."))
    assert chat.encode("Hello") == ChatFormat(load("organism").tokenizer, system="Be kind.").encode("Hello")
    assert str(LoadOptions(dtype="bfloat16").load(file).dtype) == "torch.bfloat16"


def test_what_transformers_does_not_load_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    unknown = organism_gguf(tmp_path / "unknown.gguf", general__architecture=(TEXT, "flubber"))
    with pytest.raises(UnsupportedError, match=r"architecture 'flubber'; install llama\.cpp's llama-server"):
        load(unknown)


def test_what_transformers_leaves_out_is_not_made_up(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = organism_gguf(tmp_path / "model.gguf")
    # A mixture of experts goes by the same architecture, and has other tensors here.
    file.write_bytes(file.read_bytes().replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_none.weight"))
    with pytest.raises(
        UnsupportedError, match=r"no tensor for 1 parameters.*'model\.layers\.1\.mlp\.down_proj\.weight'"
    ):
        load(file)


def test_parts_are_one_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    whole = load(organism_gguf(tmp_path / "model.gguf"))
    parts = in_parts(tmp_path / "model.gguf", 3)
    for given in (parts[0], parts[2], tmp_path):
        found = load(given)
        assert found.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
        state = whole.model.state_dict()
        assert all(tensor.equal(state[name]) for name, tensor in found.model.state_dict().items())
    joined = load(parts[0], dtype="bfloat16")
    assert str(joined.dtype) == "torch.bfloat16"


def test_parts_need_room_to_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    organism_gguf(tmp_path / "model.gguf")
    parts = in_parts(tmp_path / "model.gguf", 2)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(UsageError, match=r"needs the 2 parts in one file of 0\.0 GB.*point TMPDIR"):
        load(parts[0])


def test_without_the_package_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"loading a GGUF file through transformers needs gguf.*\[gguf\]"):
        load(organism_gguf(tmp_path / "model.gguf"))


def test_the_metadata_of_a_file_is_read_through_arrays(tmp_path: Path) -> None:
    """Each of its hundred thousand texts is several slices; of a mapped file they took most of the time of loading."""
    gguf = pytest.importorskip("gguf")
    file = organism_gguf(tmp_path / "model.gguf")
    kind = gguf.GGUFReader
    with through_arrays():
        reader = gguf.GGUFReader(file)
        assert type(reader.data) is np.ndarray
    assert gguf.GGUFReader is kind
    plain = kind(file)
    assert {name: field.contents() for name, field in reader.fields.items()} == {
        name: field.contents() for name, field in plain.fields.items()
    }
    assert all((one.data == other.data).all() for one, other in zip(reader.tensors, plain.tensors, strict=True))
