"""A prompt set is cleaned once, identified by its texts alone, and split by seed into disjoint parts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.prompts.sets import PromptSet


def numbered(count, categories=None):
    return PromptSet.of("numbers", [f"prompt {index}" for index in range(count)], categories=categories)


def test_cleans_and_counts():
    made = PromptSet.of("x", ["  a ", "", "b", "a", "\t\n", "c\n"], ["1", None, "2", "other", None, " "])
    assert made.prompts == ("a", "b", "c")
    assert made.answers == ("1", "2", None)
    assert made.dropped == {"empty": 2, "duplicate": 1}


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=8)))
def test_cleaning_keeps_every_distinct_text_once(texts):
    wanted = {text.strip() for text in texts} - {""}
    if not wanted:
        with pytest.raises(UsageError, match="no prompts"):
            PromptSet.of("x", texts)
        return
    made = PromptSet.of("x", texts)
    assert set(made.prompts) == wanted
    assert len(made) == len(wanted)
    assert len(made) + sum(made.dropped.values()) == len(texts)


def test_unequal_columns_are_refused():
    with pytest.raises(UsageError, match="2 prompts, 1 answers"):
        PromptSet(name="x", prompts=("a", "b"), answers=(None,), categories=(None, None))


def test_text_that_no_tokenizer_takes_is_refused():
    with pytest.raises(UsageError, match=r"entry 2 .*surrogate"):
        PromptSet.of("x", ["fine", "broken \ud800"])


def test_digest_depends_on_texts_and_order_alone():
    first = PromptSet.of("one name", ["a", "b"], ["1", "2"])
    assert first.sha256 == PromptSet.of("another", [" a", "b", "a"]).sha256
    others = [["b", "a"], ["a"], ["ab"], ["a\nb"], ['a", "b']]
    assert len({first.sha256, *(PromptSet.of("x", other).sha256 for other in others)}) == 6


@given(
    st.lists(st.sampled_from(["x", "y", None]), min_size=1, max_size=60),
    st.lists(st.integers(0, 12), max_size=4),
    st.integers(),
)
def test_splits_are_disjoint_and_of_the_asked_sizes(categories, sizes, seed):
    whole = numbered(len(categories), categories)
    if sum(sizes) > len(whole):
        with pytest.raises(UsageError, match=f"numbers has {len(whole)} prompts, but {sum(sizes)}"):
            whole.split(sizes, seed)
        return
    parts = whole.split(sizes, seed)
    assert [len(part) for part in parts] == list(sizes)
    together = [prompt for part in parts for prompt in part.prompts]
    assert len(set(together)) == len(together)
    pairs = dict(zip(whole.prompts, whole.categories, strict=True))
    assert all(
        pairs[prompt] == kind for part in parts for prompt, kind in zip(part.prompts, part.categories, strict=True)
    )
    assert whole.split(sizes, seed) == parts


def test_parts_have_the_categories_in_proportion():
    whole = numbered(120, ["big"] * 80 + ["small"] * 40)
    for seed in range(5):
        for part in whole.split((30, 60), seed):
            share = Counter(part.categories)["small"] / len(part)
            assert abs(share - 1 / 3) <= 1 / len(part)


def test_seed_decides_the_choice_and_order_stays():
    whole = numbered(50)
    assert whole.take(10, 1) != whole.take(10, 2)
    assert whole.take(50, 3).prompts == whole.prompts
    taken = [whole.prompts.index(prompt) for prompt in whole.take(10, 1).prompts]
    assert taken == sorted(taken)


def test_negative_size_is_refused():
    with pytest.raises(UsageError, match="negative"):
        numbered(3).split((1, -1))
