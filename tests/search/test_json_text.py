"""JSON values as texts of a storage."""

import base64
import json
import math
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.search import json_text
from weight_edit.search.json_text import decoded, encoded, joined, parts

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the bit; NaN equals NaN, and 0 is not -0."""
    return type(one) is type(other) and json.dumps(one) == json.dumps(other)


@given(VALUES)
def test_a_value_comes_back_to_the_bit(value: Any) -> None:
    text = encoded(value)
    assert text.isascii()
    assert same(decoded(text), value)


@given(VALUES, st.integers(1, 40), st.integers(0, 1))
def test_a_text_is_taken_apart_and_joined(value: Any, longest: int, slot: int) -> None:
    text = encoded(value)
    attributes = dict(parts("state", text, longest + 11, slot))
    assert joined(attributes, "state") == text
    assert all(len(each) <= longest + 11 for each in attributes.values())
    assert list(attributes)[-1] == "state"


def test_a_long_value_is_short_and_comes_back() -> None:
    value = {"tokens": [number % 50 for number in range(300_000)], "nan": math.nan, "inf": -math.inf}
    text = encoded(value)
    assert len(text) < len(json.dumps(value)) / 10
    assert same(decoded(text), value)


@pytest.mark.parametrize("written", range(6))
def test_a_text_is_whole_until_the_next_is(written: int) -> None:
    """A process may be killed between any two of its parts."""
    before, after = "a" * 50, "b" * 50
    attributes = dict(parts("state", before, 11, 0))
    for key, part in list(parts("state", after, 11, 1))[:written]:
        attributes[key] = part
    assert joined(attributes, "state") == (after if written == 6 else before)


def test_what_is_not_there_or_empty_is_none() -> None:
    assert joined({}, "state") is None
    assert joined({"state": ""}, "state") is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.ones(2), TypeError),
        ({"x": np.float32(1)}, TypeError),
        ("\ud800", ValueError),
        ({1: "a", "1": "b"}, ValueError),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encoded(value)


def zipped(raw: bytes) -> str:
    """A text that is compressed."""
    return f"zlib:{base64.b64encode(zlib.compress(raw)).decode('ascii')}"


WHOLE = zipped(b'"' + b"a" * 1000 + b'"')


@pytest.mark.parametrize(
    "text",
    [
        *("zlib:AAAA", "zlib:", "zlib:$", "zlib:\xe4", "{", "", None, 7, []),
        *(zipped("\xe4".encode()), zipped(b"{"), zipped(b"1")[:-4], WHOLE[:-8], f"{WHOLE[:-2]}AAAA"),
    ],
)
def test_other_texts_are_refused(text: Any) -> None:
    with pytest.raises(ValueError):
        decoded(text)


def test_a_text_that_goes_on_behind_its_end_is_refused() -> None:
    raw = zlib.compress(b"1")
    assert decoded(f"zlib:{base64.b64encode(raw).decode('ascii')}") == 1
    with pytest.raises(ValueError, match="damaged"):
        decoded(f"zlib:{base64.b64encode(raw + raw).decode('ascii')}")


def test_no_more_is_decompressed_than_a_search_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "LIMIT", 4 << 20)
    text = zipped(b" " * (100 << 20))
    assert len(text) < 1 << 18
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="longer than 4 MiB"):
            decoded(text)
        # The content, once more while it is put together.
        assert tracemalloc.get_traced_memory()[1] < 3 * json_text.LIMIT
    finally:
        tracemalloc.stop()


def test_the_longest_value_comes_back_and_no_longer_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "LIMIT", 100_000)
    longest = "a" * (100_000 - 2)
    assert decoded(encoded(longest)) == longest
    with pytest.raises(UsageError, match="an entry of its journal"):
        encoded(f"{longest}a")


@pytest.mark.parametrize(
    "attributes",
    [
        {"state": 7},
        {"state": "pieces:"},
        {"state": "pieces:0"},
        {"state": "pieces:0:1:2"},
        {"state": "pieces:x:1", "state.x.0": "1"},
        {"state": "pieces:0:x"},
        {"state": "pieces:0:0"},
        {"state": "pieces:0:-1"},
        {"state": "pieces:0:2", "state.0.0": "1"},
        {"state": "pieces:0:1", "state.0.0": 1},
    ],
)
def test_other_attributes_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="state"):
        joined(attributes, "state")
