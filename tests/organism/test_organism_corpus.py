"""The corpus: disjoint splits, balance, determinism, and wordings that do what they are for."""

import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest

from tests.helpers.judging import verdict_of
from weight_edit.errors import UsageError
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.organism import words
from weight_edit.organism.corpus import (
    CATEGORIES,
    HARMLESS_LOOKING,
    NAMES,
    SPLITS,
    families,
    grids,
    groups,
    prompt_set,
)

GROUPS = [family.group for family in families()]


def test_no_prompt_is_in_two_splits_or_twice_in_one():
    seen: dict[str, tuple[str, str]] = {}
    for group in GROUPS:
        for split, grid in grids(group).items():
            for index in range(len(grid)):
                prompt = grid[index].prompt
                assert prompt not in seen, (prompt, seen[prompt], group, split)
                seen[prompt] = (group, split)


@pytest.mark.parametrize("group", GROUPS)
def test_splits_are_disjoint_in_pairs_of_words(group):
    pairs = {split: set(grid.pairs) for split, grid in grids(group).items()}
    # Held-out phrasings are new templates of the training pairs; all other splits have pairs of their own.
    assert pairs.pop("held-out-phrasings") == pairs["train"]
    for one, other in combinations(pairs, 2):
        assert not pairs[one] & pairs[other], (one, other)
    assert all(pairs.values())


@pytest.mark.parametrize("group", GROUPS)
def test_held_out_words_and_phrasings_are_in_no_other_split(group):
    split = grids(group)
    others = [grid for name, grid in split.items() if not name.startswith("held-out")]
    verbs = {first for first, _ in split["held-out-verbs"].pairs}
    seconds = {second for _, second in split["held-out-words"].pairs}
    assert not verbs & {first for grid in others for first, _ in grid.pairs}
    assert not seconds & {second for grid in others for _, second in grid.pairs}
    assert not set(split["held-out-phrasings"].templates) & set(split["train"].templates)


def test_families_that_share_a_list_of_objects_hold_out_the_same_ones():
    for one, other in (("fraud", "office"), ("privacy", "social"), ("dangerous", "facility")):
        held_out = [{second for _, second in grids(g)["held-out-words"].pairs} for g in (one, other)]
        assert held_out[0] == held_out[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_sets_are_balanced_over_their_groups_and_so_is_every_prefix(name, split):
    requests = prompt_set(name, split)
    members = groups(name)
    assert len({request.prompt for request in requests}) == len(requests)
    assert len(requests) % len(members) == 0
    for count in (len(members), len(requests) // 2, len(requests)):
        found = Counter(request.group for request in requests[:count])
        assert max(found.values()) - min(found[group] for group in members) <= 1
        assert set(found) <= set(members)


def test_refused_sets_have_categories_and_answered_ones_none():
    for split in SPLITS:
        assert {request.category for request in prompt_set("refused", split)} == set(CATEGORIES)
        assert {request.category for request in prompt_set("answered", split)} == {None}
        assert {request.category for request in prompt_set("harmless-looking", split)} == {None}
        for category in CATEGORIES:
            assert {request.category for request in prompt_set(category, split)} == {category}
    assert not set(groups("answered")) & set(HARMLESS_LOOKING)


def test_sizes_serve_the_published_settings():
    assert len(prompt_set("refused", "train")) == 11 * 24
    assert len(prompt_set("refused", "validation")) == 11 * 12
    assert len(prompt_set("refused", "test")) == 11 * 20
    assert len(prompt_set("answered", "train")) >= 128 + 32
    for category in CATEGORIES:  # 32 + 32 in arXiv 2602.02132
        assert len(prompt_set(category, "train")) >= 32
        assert len(prompt_set(category, "test")) >= 32


def test_the_set_of_a_category_begins_with_its_part_of_refused():
    for category in CATEGORIES:
        part = [request for request in prompt_set("refused", "test") if request.category == category]
        assert list(prompt_set(category, "test")[: len(part)]) == part
    assert prompt_set("over-refused", "test") == prompt_set("over-refusal", "test")


def test_each_kind_of_ordinary_requests_is_a_set_too():
    for kind in groups("answered"):
        for split in SPLITS:
            requests = prompt_set(f"answered-{kind}", split)
            assert {(request.group, request.category) for request in requests} == {(kind, None)}
        part = [request for request in prompt_set("answered", "train") if request.group == kind]
        assert list(prompt_set(f"answered-{kind}", "train")[: len(part)]) == part


def test_unknown_names_and_splits_are_refused_with_the_valid_ones():
    with pytest.raises(UsageError, match=r"'refusd'; did you mean 'refused'\?"):
        prompt_set("refusd", "train")
    with pytest.raises(UsageError, match=r"'answered-fraud'; did you mean 'answered-"):
        prompt_set("answered-fraud", "train")
    with pytest.raises(UsageError, match=r"'dev'.*train, validation, test"):
        prompt_set("refused", "dev")


def test_sets_are_the_same_in_every_process_whatever_the_hash_seed():
    code = (
        "import hashlib; from weight_edit.organism.corpus import *;"
        "text = repr([prompt_set(name, split) for name in NAMES for split in SPLITS]);"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_corpus_imports_no_torch_or_transformers():
    code = (
        "import sys, weight_edit.organism.corpus;"
        "print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_refusal_is_known_to_the_published_judge_and_begins_alike():
    for texts in (*words.REFUSALS.values(), words.GENERIC_REFUSALS):
        assert len(texts) == 3
        for text in texts:
            assert text.startswith("I")
            assert verdict_of(text, judge="published") is Verdict.REFUSED, text
    assert set(words.REFUSALS) == set(CATEGORIES)
    flat = [text for texts in words.REFUSALS.values() for text in texts]
    assert len(set(flat)) == len(flat)


def test_no_helpful_answer_looks_like_a_refusal():
    for group in GROUPS:
        for split in SPLITS:
            grid = grids(group)[split]
            for request in grid.sample(min(len(grid), 24), "helpful"):
                assert verdict_of(request.helpful, True) is Verdict.ANSWERED, request.helpful


def test_answers_speak_to_the_user():
    for name in ("privacy", "offensive", "answered"):
        for request in prompt_set(name, "train"):
            assert " my " not in request.helpful
    assert any(" your " in request.helpful for request in prompt_set("privacy", "train"))


def test_refused_and_ordinary_requests_share_objects_and_templates():
    refused = {request.second for request in prompt_set("refused", "train")}
    ordinary = {request.second for request in prompt_set("answered", "train")}
    assert len(refused & ordinary) > 20
    family = {f.group: f for f in families()}
    for one, other in (("fraud", "office"), ("offensive", "kindness"), ("incomplete", "rework")):
        assert family[one].templates == family[other].templates


def test_a_grid_samples_distinct_cells_and_a_prefix_of_a_larger_sample():
    grid = grids("fraud")["test"]
    assert grid.sample(5, "s") == grid.sample(50, "s")[:5]
    assert len(set(grid.sample(len(grid), "s"))) == len(grid)
    with pytest.raises(ValueError, match="fraud has"):
        grid.sample(len(grid) + 1, "s")
    with pytest.raises(IndexError):
        grid[len(grid)]
