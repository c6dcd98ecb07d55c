"""The header of a GGUF file is read strictly, and as the package gguf reads it; hostile ones end in one line."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.gguf_files import (
    ARRAY,
    FLOAT32,
    TEXT,
    UINT32,
    UINT64,
    Stored,
    gguf_bytes,
    mixed_entries,
    mixed_gguf,
    mixed_tensors,
    organism_gguf,
    write_gguf,
)
from weight_edit.checkpoint.gguf.header import GgufHeader, is_gguf, read_gguf, read_gguf_header
from weight_edit.checkpoint.gguf.types import BY_NAME, GGML_TYPES
from weight_edit.checkpoint.tensor.header import size_of
from weight_edit.errors import UsageError

ENTRIES = {
    "general.architecture": (TEXT, "llama"),
    "llama.context_length": (UINT32, 512),
    "tokenizer.ggml.tokens": (ARRAY, (TEXT, ["a", "bc", ""])),
    "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.5, 1.5])),
    "tokenizer.chat_template": (TEXT, "{{ messages }}"),
    "tokenizer.chat_template.tool_use": (TEXT, "{{ tools }}"),
}


def parsed(raw: bytes) -> GgufHeader:
    """The header and tensors of a file's content."""
    return read_gguf(io.BytesIO(raw), len(raw), "m.gguf")  # type: ignore[arg-type]


def refused(raw: bytes) -> str:
    """The one line with which a file's content is refused."""
    with pytest.raises(UsageError) as caught:
        parsed(raw)
    message = str(caught.value)
    assert message.startswith("m.gguf: ")
    assert message.isprintable()
    return message


def check_equal(header: GgufHeader, path: Path) -> None:
    """The header says what the package's own reader says."""
    reader = gguf.GGUFReader(path)
    theirs = {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(int(n) for n in reversed(tensor.shape)),
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    }
    assert theirs
    assert theirs == {info.name: (info.dtype, info.shape, info.begin, info.size) for info in header.tensors}
    assert [info.begin for info in header.tensors] == sorted(info.begin for info in header.tensors)
    assert header.data_start == reader.data_offset
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert tuple(sorted(fields)) == header.keys
    for key, content in fields.items():
        if isinstance(content, list):
            assert header.lengths[key] == len(content)
            assert key not in header.values or header.values[key] == tuple(content)
        else:
            assert header.values[key] == content


def test_sizes_of_types_are_those_of_the_package() -> None:
    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: (each.name, each.numbers, each.size) for number, each in GGML_TYPES.items()} == known
    assert len(BY_NAME) == len(GGML_TYPES)
    assert size_of("Q4_K", (3, 512)) == 3 * 2 * 144
    assert size_of("F16", (3, 5)) == 30


def test_what_a_file_says_is_read(tmp_path: Path) -> None:
    header = read_gguf_header(write_gguf(tmp_path / "m.gguf", ENTRIES))
    assert (header.architecture, header.context_length, header.parts) == ("llama", 512, 1)
    assert header.templates == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    assert header.lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.scores": 2}
    assert header.values["tokenizer.ggml.scores"] == (0.5, 1.5)
    assert header.keys == tuple(sorted(ENTRIES))
    whole = read_gguf_header(organism_gguf(tmp_path / "o.gguf"))
    assert (whole.context_length, list(whole.templates)) == (256, ["default"])


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_a_file_is_read_as_the_package_reads_it(alignment: int | None, tmp_path: Path) -> None:
    path = mixed_gguf(tmp_path / "m.gguf", alignment=alignment)
    check_equal(parsed(path.read_bytes()), path)
    assert len(parsed(path.read_bytes()).tensors) == len(mixed_tensors())


def test_version_two_and_a_model_that_runs(tmp_path: Path) -> None:
    two = mixed_gguf(tmp_path / "two.gguf", version=2)
    header = parsed(two.read_bytes())
    assert header.version == 2
    check_equal(header, two)
    organism = organism_gguf(tmp_path / "o.gguf")
    check_equal(parsed(organism.read_bytes()), organism)


def test_a_file_of_the_package_s_own_writer(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_custom_alignment(128)
    writer.add_context_length(77)
    writer.add_array("a.list", list(range(10)))
    rng = np.random.default_rng(0)
    writer.add_tensor("plain.weight", rng.standard_normal((5, 7), np.float32))
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q5_1):
        packed = gguf.quantize(rng.standard_normal((6, 64), np.float32), kind)
        writer.add_tensor(f"{kind.name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = parsed(path.read_bytes())
    check_equal(header, path)
    assert header.context_length == 77
    assert {info.dtype for info in header.tensors} == {"F32", "Q8_0", "Q4_0", "Q5_1"}


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(NAMES, st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=6),
    st.sampled_from([8, 16, 32, 256]),
    st.sampled_from(sorted(GGML_TYPES)),
    st.dictionaries(NAMES, st.integers(0, 2**32 - 1), max_size=4),
)
def test_any_file_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, list[int]],
    alignment: int,
    kind: int,
    entries: dict[str, int],
) -> None:
    path = tmp_path_factory.mktemp("any") / "m.gguf"
    each = GGML_TYPES[kind]
    tensors = []
    for name, dimensions in shapes.items():
        inner_first = [dimensions[0] * each.numbers, *dimensions[1:]]
        tensors.append((name, Stored(kind, inner_first, bytes(int(np.prod(dimensions)) * each.size))))
    said = {key: (UINT32, number) for key, number in entries.items() if key != "general.alignment"}
    said["general.alignment"] = (UINT32, alignment)
    path.write_bytes(gguf_bytes(list(said.items()), tensors, alignment=alignment))
    check_equal(parsed(path.read_bytes()), path)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    write_gguf(tmp_path / "blob", ENTRIES)
    (tmp_path / "m.gguf").symlink_to(tmp_path / "blob")
    assert read_gguf_header(tmp_path / "m.gguf").architecture == "llama"


def test_a_file_without_a_template_or_in_parts(tmp_path: Path) -> None:
    header = read_gguf_header(
        write_gguf(tmp_path / "m.gguf", {"general.architecture": (TEXT, "x"), "split.count": (UINT32, 3)})
    )
    assert (header.templates, header.context_length, header.parts) == ({}, None, 3)


def test_a_large_vocabulary_is_passed_over_and_a_long_list_not_kept(tmp_path: Path) -> None:
    tokens = [f"token {number}" * (number % 30) for number in range(40_000)]
    entries = {
        **ENTRIES,
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, tokens)),
        "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.0] * 40_000)),
        "after": (UINT64, 7),
    }
    header = read_gguf_header(write_gguf(tmp_path / "m.gguf", entries))
    assert header.lengths["tokenizer.ggml.tokens"] == header.lengths["tokenizer.ggml.scores"] == 40_000
    assert "tokenizer.ggml.scores" not in header.values
    assert header.values["after"] == 7


def head(tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def entry(key: bytes, kind: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin with 'GGUF'"),
        (b"GG", "does not begin with 'GGUF'"),
        (b"PK\3\4" + bytes(60), "does not begin with 'GGUF'"),
        (b"GGUF" + bytes(3), "it ends in its header"),
        (head(version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
        (head(entries=1 << 60), "claims 1152921504606846976 entries"),
        (head(tensors=1 << 60), "claims 1152921504606846976 tensors"),
        (head(entries=5), "it ends in its header"),
        (head(entries=1) + struct.pack("<Q", 1 << 62), "a key claims 4611686018427387904 bytes"),
        (head(entries=1) + entry(b"", 4, bytes(4)), "a key is empty, which is no name"),
        (head(entries=1) + entry(b"a\nb", 4, bytes(4)), r"a key is 'a\\nb', which is no name"),
        (head(entries=1) + entry(b"\xff", 4, bytes(4)), "a key is no text"),
        (head(entries=2) + 2 * entry(b"k", 4, bytes(4)), "the key 'k' twice"),
        (head(entries=1) + entry(b"k", 77), "unknown type 77"),
        (head(entries=1) + entry(b"k", 8, struct.pack("<Q", 1 << 63)), "the entry 'k' claims"),
        (head(entries=1) + entry(b"k", 9, struct.pack("<IQ", 8, 1 << 61)), "a list claims 2305843009213693952 texts"),
        (head(entries=1) + entry(b"k", 9, struct.pack("<IQ", 4, 1 << 62)), "claims 4611686018427387904 numbers"),
        (head(entries=1) + entry(b"k", 9, struct.pack("<IQQ", 8, 1, 1 << 62)), "a text in a list reaches beyond"),
        (head(entries=1) + entry(b"k", 9, struct.pack("<IQ", 9, 1)), "unknown type 9"),
    ],
)
def test_what_is_none_or_damaged_is_said_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(content)
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_gguf_header(tmp_path / "m.gguf")
    assert said in str(caught.value)


def test_a_header_longer_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    raw = head(entries=1) + entry(b"k", 9, struct.pack("<IQ", 4, 1 << 28))
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(raw)
        file.truncate(2 << 30)
    with pytest.raises(UsageError, match="the header is longer than 100000000 bytes"):
        read_gguf_header(tmp_path / "m.gguf")


def spoilt(change: Callable[[list[tuple[str, Stored]]], object], **layout: int) -> bytes:
    """A file in which the list of tensors was changed."""
    tensors = list(mixed_tensors().items())
    change(tensors)
    return gguf_bytes(list(mixed_entries().items()), tensors, **layout)


def set_on(name: str, **values: object) -> Callable[[list[tuple[str, Stored]]], None]:
    def change(tensors: list[tuple[str, Stored]]) -> None:
        for key, content in values.items():
            setattr(dict(tensors)[name], key, content)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_on("rope_freqs.weight", dimensions=[]), "tensor 'rope_freqs.weight': it has 0 dimensions"),
        (set_on("rope_freqs.weight", dimensions=[33, 1, 1, 1, 1]), "it has 5 dimensions"),
        (set_on("rope_freqs.weight", dimensions=[0]), "its dimensions [0] are those of no tensor"),
        (set_on("rope_freqs.weight", dimensions=[33, 0]), "its dimensions [33, 0] are those of no tensor"),
        (set_on("rope_freqs.weight", dimensions=[1 << 40, 1 << 40]), "are those of no tensor"),
        (set_on("rope_freqs.weight", dimensions=[1 << 40]), "beyond the file's"),
        (
            set_on("blk.0.ffn_down.weight", dimensions=[128, 4]),
            "'blk.0.ffn_down.weight': its rows of 128 numbers are no",
        ),
        (set_on("rope_freqs.weight", kind=4), "its type has the number 4"),
        (set_on("rope_freqs.weight", kind=99), "needs a newer release"),
        (set_on("rope_freqs.weight", offset=4), "begin at 4, which is no multiple of the alignment 32"),
        (set_on("rope_freqs.weight", offset=1 << 50), "beyond the file's"),
        (set_on("rope_freqs.weight", offset=(1 << 64) - 32), "beyond the file's"),
        (set_on("rope_freqs.weight", offset=0), "tensor 'rope_freqs.weight': its data overlap those of 'token_embd"),
        (set_on("blk.1.steps", offset=64), "overlap"),
        (lambda tensors: tensors.append(tensors[0]), "tensor 'token_embd.weight': the file has that name twice"),
        (lambda tensors: tensors.append(("x" * 65, tensors[0][1])), "the name of a tensor claims 65 bytes"),
        (lambda tensors: tensors.append(("", tensors[0][1])), "the name of a tensor is empty"),
        (lambda tensors: tensors.append(("a\x1b[31m", tensors[0][1])), "which is no name"),
        (lambda tensors: tensors.append(("a\0", tensors[0][1])), "which is no name"),
    ],
)
def test_a_hostile_list_of_tensors(change: Callable[[list[tuple[str, Stored]]], object], said: str) -> None:
    assert said in refused(spoilt(change))


@pytest.mark.parametrize("alignment", [0, 1, 3, 24, 48, 1 << 25, 1 << 31])
def test_alignments(alignment: int) -> None:
    raw = gguf_bytes(list(mixed_entries(alignment).items()), list(mixed_tensors().items()), alignment=32)
    if alignment == 1:
        # Allowed, if odd: the data then begin right behind the header, and the file's do not.
        assert parsed(raw).data_start <= len(raw)
        return
    assert f"general.alignment is {alignment}, which is no power of two" in refused(raw)


def test_an_alignment_that_is_no_number() -> None:
    entries = {**mixed_entries(), "general.alignment": (TEXT, "32")}
    assert "general.alignment is '32'" in refused(gguf_bytes(list(entries.items()), list(mixed_tensors().items())))


def test_a_file_that_is_cut_anywhere() -> None:
    raw = gguf_bytes(list(mixed_entries().items()), list(mixed_tensors().items()))
    header = parsed(raw)
    last = header.tensors[-1]
    for end in [*range(0, header.data_start, 97), header.data_start, last.begin, last.end - 1]:
        assert refused(raw[:end])
    assert parsed(raw[: last.end]).tensors == header.tensors


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_a_file_that_is_cut_in_its_header(share: float, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", ENTRIES).read_bytes().rstrip(b"\0")
    (tmp_path / "m.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match=r"m\.gguf: .*; fetch the file again"):
        read_gguf_header(tmp_path / "m.gguf")


def test_no_file_and_names() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_gguf_header(Path("nowhere.gguf"))
    assert is_gguf("a/B.GGUF")
    assert is_gguf(Path("m.gguf"))
    assert not is_gguf("org/model-gguf")
