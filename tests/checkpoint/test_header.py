"""Whatever our header parser accepts, safetensors accepts, and it accepts what safetensors writes."""

import io
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from weight_edit.checkpoint.tensor.header import (
    DTYPE_BITS,
    MAX_HEADER,
    Header,
    HeaderEntry,
    header_bytes,
    read_header,
    size_of,
)
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES
from weight_edit.errors import UsageError


def parse(raw: bytes) -> Header:
    return read_header(io.BytesIO(raw), len(raw), "s.safetensors")


def assemble(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def reference_accepts(raw: bytes) -> bool:
    try:
        deserialize(raw)
    except SafetensorError:
        return False
    return True


NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable())
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    NAMES,
    st.builds(
        lambda dtype, shape: torch.arange(int(torch.Size(shape).numel())).reshape(shape).to(dtype),
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    max_size=5,
)


@given(
    TENSORS,
    st.one_of(st.none(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=3)),
)
def test_accepts_what_safetensors_writes(tensors, metadata):
    raw = save(tensors, metadata)
    header = parse(raw)
    assert {info.name for info in header.tensors} == set(tensors)
    assert dict(header.metadata or {}) == (metadata or {})
    for info in header.tensors:
        tensor = tensors[info.name]
        assert (TORCH_DTYPES[info.dtype], info.shape) == (tensor.dtype, tuple(tensor.shape))
        stored = torch.frombuffer(bytearray(raw[info.begin : info.end]), dtype=torch.uint8) if info.size else None
        if stored is not None:
            assert torch.equal(stored.view(tensor.dtype).reshape(tensor.shape), tensor)


SAMPLE = save(
    {"a": torch.ones(2, 3), "b.weight": torch.zeros(4, dtype=torch.bfloat16), "": torch.zeros(0, 2)},
    {"format": "pt"},
)
TOKENS = [
    b"-0",
    b"1e0",
    b"true",
    b"null",
    b"NaN",
    b"[",
    b"{",
    b'"a"',
    b",",
    b"0",
    b"18446744073709551616",
    b"\xff",
    b" ",
]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.one_of(st.binary(max_size=3), st.sampled_from(TOKENS))),
    max_size=3,
)


def mutate(raw: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Replace a few bytes of the header by others, and keep the length field right."""
    length = int.from_bytes(raw[:8], "little")
    text, data = raw[8 : 8 + length], raw[8 + length :]
    for place, cut, put in changes:
        at = int(place * len(text))
        text = text[:at] + put + text[at + cut :]
    return assemble(text, data)


@settings(max_examples=400)
@given(CHANGES, st.integers(-3, 3))
def test_accepts_no_mutation_that_safetensors_refuses(changes, tail):
    raw = mutate(SAMPLE, changes)
    raw = raw[:tail] if tail < 0 else raw + b"\0" * tail
    try:
        parse(raw)
    except UsageError:
        return
    assert reference_accepts(raw)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2**65), st.floats(), st.sampled_from(sorted(DTYPE_BITS))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
ENTRIES = st.one_of(
    VALUES,
    st.builds(
        entry,
        st.one_of(st.sampled_from(sorted(DTYPE_BITS)), VALUES),
        st.one_of(st.lists(st.sampled_from([0, 1, 2, 3, 2**32, 2**62, 2**63, 2**64]), max_size=3), VALUES),
        st.one_of(st.tuples(st.integers(0, 12), st.integers(0, 12)), VALUES),
    ),
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), ENTRIES, max_size=3), st.integers(0, 12))
def test_accepts_no_structure_that_safetensors_refuses(header, length):
    raw = assemble(header, bytes(length))
    try:
        parse(raw)
    except UsageError:
        return
    assert reference_accepts(raw)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "too short"),
        (b"\0" * 7, "too short"),
        ((5).to_bytes(8, "little") + b"{}", "longer than the file"),
        ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "above the limit"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "above the limit"),
        (assemble(b""), "does not start with"),
        (assemble(b" {}"), "does not start with"),
        (assemble(b"[]"), "does not start with"),
        (assemble(b"{\xff}"), "UTF-8"),
        (assemble(b"{} x"), "not valid JSON"),
        (assemble(b'{"a":' + b"[" * 100_000), "too deeply"),
        (assemble(b'{"a":' + b"9" * 10_000 + b"}"), "no size or offset"),
        (assemble(b'{"__metadata__":{"k":"\\ud800"}}'), "not valid Unicode"),
        (assemble({"__metadata__": {"k": 1}}), "must be a string"),
        (assemble({"__metadata__": []}), "object of strings"),
        (assemble({"a": entry()}), "not in the file's 0 bytes"),
        (assemble({"a": entry(offsets=[8, 0])}, bytes(8)), "'a'"),
        (assemble({"a": entry(offsets=[-8, 0])}, bytes(8)), "-8, which is no size or offset"),
        (assemble({"a": entry(offsets=[2**64, 2**64 + 8])}, bytes(8)), "not in the file's 8 bytes"),
        (assemble({"a": entry()}, bytes(8))[:-1], "not in the file's 7 bytes"),
        (assemble({"a": entry(offsets=[0, 8, 8])}, bytes(8)), "two whole numbers"),
        (assemble({"a": entry(offsets=[False, 8])}, bytes(8)), "two whole numbers"),
        (assemble({"a": entry(shape=[2.0])}, bytes(8)), "whole numbers"),
        (assemble({"a": entry(shape=[-2])}, bytes(8)), "no size or offset"),
        (assemble({"a": entry(shape=[3])}, bytes(8)), "needs 12 bytes"),
        (assemble({"a": entry(dtype="F4", shape=[3], offsets=[0, 2])}, bytes(2)), "needs 1.5 bytes"),
        (assemble({"a": entry(dtype="float32")}, bytes(8)), "unknown dtype"),
        (assemble({"a": entry(dtype=None)}, bytes(8)), "unknown dtype"),
        (assemble({"a": entry() | {"more": 1}}, bytes(8)), "nothing else"),
        (assemble({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "nothing else"),
        (assemble({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}), "too large"),
        (assemble({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "overlaps"),
        (assemble({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "hole"),
        (assemble({"a": entry(offsets=[4, 12])}, bytes(12)), "hole"),
        (assemble({"a": entry()}, bytes(9)), "1 bytes of the file belong to no tensor"),
        (assemble(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"\\u0061":null}', b"x"), "'a' twice"),
        (
            assemble(b'{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x"),
            "'dtype' twice",
        ),
    ],
)
def test_names_file_and_fault(raw, named):
    with pytest.raises(UsageError, match=r"s\.safetensors") as caught:
        parse(raw)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_names_stay_on_one_line():
    with pytest.raises(UsageError) as caught:
        parse(assemble({"x\n\x1b[31m" + "y" * 10_000: entry(dtype="?")}, bytes(8)))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@given(
    st.dictionaries(
        NAMES,
        st.tuples(st.sampled_from(sorted(TORCH_DTYPES)), st.lists(st.integers(0, 3), max_size=3).map(tuple)),
    )
)
def test_built_headers_are_valid(layout):
    entries = [HeaderEntry(name, dtype, shape) for name, (dtype, shape) in layout.items()]
    raw = header_bytes(entries, {"format": "pt"})
    assert len(raw) % 8 == 0
    header = parse(raw + bytes(sum(size_of(entry.dtype, entry.shape) for entry in entries)))
    assert header.data_start == len(raw)
    assert header.metadata == {"format": "pt"}
    filled = [info for info in header.tensors if info.size]
    assert [(info.name, info.dtype, info.shape) for info in filled] == [
        (entry.name, entry.dtype, entry.shape) for entry in entries if size_of(entry.dtype, entry.shape)
    ]
    assert {info.name for info in header.tensors} == set(layout)
    assert reference_accepts(raw + bytes(sum(info.size for info in header.tensors)))
