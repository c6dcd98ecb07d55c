"""Names that differ in their numbers, written as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.utils.name_patterns import numbers, patterns


def test_layers_and_experts_are_ranges_and_digits_within_words_stay() -> None:
    names = [f"model.layers.{i}.mlp.experts.{e}.w2.weight" for i in range(4) for e in range(8)]
    assert patterns(names) == [("model.layers.{0..3}.mlp.experts.{0..7}.w2.weight", 32)]


def test_one_name_stays_as_it_is() -> None:
    assert patterns(["model.layers.7.w1"]) == [("model.layers.7.w1", 1)]


def test_what_is_no_product_of_ranges_says_so() -> None:
    assert patterns(["l.0.e.0", "l.0.e.1", "l.1.e.0"]) == [("l.{0..1}.e.{0..1} (some)", 3)]


def test_names_of_other_texts_are_other_patterns_in_their_order() -> None:
    assert patterns(["b.1.x", "a.0", "b.2.x"]) == [("b.{1..2}.x", 2), ("a.0", 1)]


@pytest.mark.parametrize(
    ("some", "written"),
    [
        (range(32), "0-31"),
        ([5], "5"),
        ([0, 1, 2, 4, 5, 6, 8, 9, 10], "0-2, 4-6, 8-10"),
        ([i for i in range(48) if i % 4 != 3], "0-2, 4-6, ..., 44-46"),
    ],
)
def test_ranges(some, written: str) -> None:
    assert numbers(some) == written


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, unique=True))
def test_no_name_is_lost(pairs: list[tuple[int, int]]) -> None:
    (pattern, count) = patterns(f"a.{i}.b.{j}" for i, j in pairs)[0]
    assert count == len(pairs)
    columns = [{i for i, _ in pairs}, {j for _, j in pairs}]
    assert pattern.endswith("(some)") == (len(columns[0]) * len(columns[1]) != len(pairs))
