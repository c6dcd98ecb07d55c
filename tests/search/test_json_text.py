"""JSON values as texts of a storage."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("text", ["zlib:AAAA", "zlib:$", "{", ""])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decoded(text)
