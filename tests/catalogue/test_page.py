"""docs/architectures.md: made by the tool, about the installed transformers, and nothing changed by hand."""

import re
from pathlib import Path

import pytest

from weight_edit.catalogue.entries import Entry, entries
from weight_edit.catalogue.facts import KINDS
from weight_edit.catalogue.page import BEGIN, END, is_as_made, listed, page_of
from weight_edit.catalogue.summary import Catalogue
from weight_edit.catalogue.trial import PROVEN, REFUSED, Trial

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
AGAIN = "run `make architectures`"


@pytest.fixture
def some() -> Catalogue:
    proven = {"leak": 7e-8, "leak_before": 0.4, "logit_difference": 1e-15, "kinds": ("biases", "Conv1D")}
    gpt2 = Trial.of(
        Entry("gpt2", "GPT2LMHeadModel", ("text",)), PROVEN, writers=("transformer.h.*.mlp.c_proj",), **proven
    )
    t5 = Trial.of(Entry("t5", "T5", ("text",)), REFUSED, "model type 't5' is an encoder-decoder | of text; only <x>")
    return Catalogue.of([t5, gpt2])


def test_it_lists_the_model_types_of_the_installed_transformers() -> None:
    assert listed(PAGE.read_text(encoding="utf-8")) == {entry.model_type for entry in entries()}, AGAIN


def test_it_is_as_the_tool_made_it() -> None:
    assert is_as_made(PAGE.read_text(encoding="utf-8")), AGAIN


def test_it_says_nothing_failed_and_at_least_150_are_proven() -> None:
    text = PAGE.read_text(encoding="utf-8")
    number = int(re.search(r"\*\*(\d+) are proven complete", text)[1])
    assert number >= 150
    assert "failed" not in text.partition("## Find")[0]


def test_a_page_has_every_family_once_in_its_index_and_its_table(some: Catalogue) -> None:
    text = page_of(some)
    assert listed(text) == {"gpt2", "t5"}
    assert "**G** `gpt2`" in text
    assert "**T** *`t5`*" in text
    assert "| gpt2 | GPT2LMHeadModel | text | 7e-08 | 1e-15 | `mlp.c_proj` | biases; Conv1D |" in text
    assert "| t5 | T5 | is an encoder-decoder \\| of text; only &lt;x> |" in text
    assert f"| Conv1D | {KINDS['Conv1D']} | 1 | gpt2 |" in text


def test_what_could_not_be_followed_is_counted_apart_and_named(some: Catalogue) -> None:
    kept = Trial.of(
        Entry("janus", "J", ("text",)), PROVEN, leak=1e-8, logit_difference=0.0, unknown=("'model.vq' had no part",)
    )
    text = page_of(Catalogue((*some.trials, kept), some.versions))
    assert "**1 are proven complete, 1 but for a part that is named, and 1 are refused by name**" in text
    assert "not followed: 'model.vq' had no part" in text


def test_a_change_by_hand_is_noticed_and_the_measured_table_is_not_one(some: Catalogue) -> None:
    text = page_of(some)
    assert is_as_made(text)
    assert not is_as_made(text.replace("GPT2LMHeadModel", "GPT3"))
    assert not is_as_made("no page")
    measured = text.replace(f"{BEGIN}\n{END}", f"{BEGIN}\n| a | b |\n{END}")
    assert measured != text
    assert is_as_made(measured)
    assert page_of(some, measured) == measured


def test_the_readme_claims_no_more_than_the_page_shows() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    claimed, total = re.search(r"More than (\d+) of the (\d+) model types", readme).groups()
    assert int(re.search(r"\*\*(\d+) are proven complete", page)[1]) > int(claimed)
    assert f"Of the {total} model types" in page
