"""The header of a GGUF file is read strictly, and hostile ones end in one line."""

import struct
from pathlib import Path

import pytest

from tests.helpers.gguf_files import ARRAY, FLOAT32, TEXT, UINT32, organism_gguf, write_gguf
from weight_edit.checkpoint.gguf.header import is_gguf, read_gguf_header
from weight_edit.errors import UsageError

ENTRIES = {
    "general.architecture": (TEXT, "llama"),
    "llama.context_length": (UINT32, 512),
    "tokenizer.ggml.tokens": (ARRAY, (TEXT, ["a", "bc", ""])),
    "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.5, 1.5])),
    "tokenizer.chat_template": (TEXT, "{{ messages }}"),
    "tokenizer.chat_template.tool_use": (TEXT, "{{ tools }}"),
}


def test_what_a_file_says_is_read(tmp_path: Path) -> None:
    header = read_gguf_header(write_gguf(tmp_path / "m.gguf", ENTRIES))
    assert (header.architecture, header.context_length, header.parts) == ("llama", 512, 1)
    assert header.templates == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    whole = read_gguf_header(organism_gguf(tmp_path / "o.gguf"))
    assert (whole.context_length, list(whole.templates)) == (256, ["default"])


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    write_gguf(tmp_path / "blob", ENTRIES)
    (tmp_path / "m.gguf").symlink_to(tmp_path / "blob")
    assert read_gguf_header(tmp_path / "m.gguf").architecture == "llama"


def test_a_file_without_a_template_or_in_parts(tmp_path: Path) -> None:
    header = read_gguf_header(
        write_gguf(tmp_path / "m.gguf", {"general.architecture": (TEXT, "x"), "split.count": (UINT32, 3)})
    )
    assert (header.templates, header.context_length, header.parts) == ({}, None, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "or it is cut"),
        (b"GG", "does not begin with 'GGUF'"),
        (b"PK\3\4" + bytes(60), "does not begin with 'GGUF'"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "claims"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "reaches beyond"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 61), "or it is cut"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "general.architecture"),
    ],
)
def test_what_is_none_or_damaged_is_said_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_gguf_header(tmp_path / "m.gguf")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_a_file_that_is_cut_in_its_header(share: float, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", ENTRIES).read_bytes().rstrip(b"\0")
    (tmp_path / "m.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match=r"m\.gguf is no GGUF file that can be read"):
        read_gguf_header(tmp_path / "m.gguf")


def test_no_file_and_names() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_gguf_header(Path("nowhere.gguf"))
    assert is_gguf("a/B.GGUF")
    assert is_gguf(Path("m.gguf"))
    assert not is_gguf("org/model-gguf")
