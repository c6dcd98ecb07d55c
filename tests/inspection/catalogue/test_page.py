"""docs/architectures.md and its data: made by the tool, of one release of transformers, and nothing changed by hand."""

import re
from pathlib import Path

import pytest

from tests.helpers.committed_verdicts import DATA, TYPES, VERDICTS, otherwise
from weight_edit.inspection.catalogue.entries import Entry, entries
from weight_edit.inspection.catalogue.facts import KINDS
from weight_edit.inspection.catalogue.page import BEGIN, END, MADE_BY, is_as_made, listed, page_of
from weight_edit.inspection.catalogue.status import FAILED, PROVEN, REFUSED
from weight_edit.inspection.catalogue.summary import Catalogue
from weight_edit.inspection.catalogue.trial import Trial
from weight_edit.inspection.catalogue.verdicts import Verdict, Verdicts, differences

PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"
AGAIN = "run `make architectures`"


@pytest.fixture
def some() -> Catalogue:
    proven = {"leak": 7e-8, "leak_before": 0.4, "logit_difference": 1e-15, "kinds": ("biases", "Conv1D")}
    gpt2 = Trial.of(
        Entry("gpt2", "GPT2LMHeadModel", ("text",)), PROVEN, writers=("transformer.h.*.mlp.c_proj",), **proven
    )
    t5 = Trial.of(Entry("t5", "T5", ("text",)), REFUSED, "model type 't5' is an encoder-decoder | of text; only <x>")
    return Catalogue.of([t5, gpt2])


def test_the_verdicts_are_on_the_model_types_of_the_installed_transformers() -> None:
    """Under another release than theirs this reports what it has besides, and what it lacks."""
    installed = {entry.model_type for entry in entries()}
    besides, lacking = sorted(installed - TYPES.keys()), sorted(TYPES.keys() - installed)
    if besides or lacking:
        otherwise(f"without a verdict: {', '.join(besides) or 'none'}; gone: {', '.join(lacking) or 'none'} ({AGAIN})")


@pytest.mark.parametrize(("same_release", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)])
def test_a_family_without_a_verdict_fails_in_their_release_and_is_reported_in_another(
    monkeypatch: pytest.MonkeyPatch, same_release: bool, outcome: type[BaseException]
) -> None:
    release = VERDICTS.transformers if same_release else "9.0.0"
    monkeypatch.setattr("weight_edit.inspection.catalogue.verdicts.version", lambda _: release)
    known = [verdict.entry for verdict in VERDICTS.verdicts]
    monkeypatch.setattr(f"{__name__}.entries", lambda: [*known, Entry("brand_new", "X", ("text",))])
    with pytest.raises(outcome, match="without a verdict: brand_new; gone: none"):
        test_the_verdicts_are_on_the_model_types_of_the_installed_transformers()


def test_the_page_and_its_data_say_the_same() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert listed(page) == set(TYPES), AGAIN
    assert f"that transformers {VERDICTS.transformers} maps" in page
    for name, verdict in TYPES.items():
        assert (f"*`{name}`*" in page) == (verdict.status == REFUSED), name
        assert verdict.entry.architecture in page
    assert DATA.read_text(encoding="utf-8") == Verdicts.read(DATA).to_json()


def test_every_verdict_is_one_and_a_refusal_has_its_reason() -> None:
    for verdict in VERDICTS.verdicts:
        assert verdict.status in (PROVEN, REFUSED), verdict
        assert bool(verdict.reason) == (verdict.status == REFUSED), verdict


def test_it_is_as_the_tool_made_it() -> None:
    assert is_as_made(PAGE.read_text(encoding="utf-8")), AGAIN


def test_what_failed_has_no_verdict_and_no_page(some: Catalogue) -> None:
    failed = Trial.of(Entry("new", "N", ("text",)), FAILED, "RuntimeError: sizes")
    with pytest.raises(ValueError, match="'new' has no verdict: RuntimeError: sizes"):
        page_of(Catalogue((*some.trials, failed), some.versions))


@pytest.mark.parametrize(("status", "written"), [(REFUSED, True), (FAILED, False)])
def test_a_page_and_its_data_are_written_only_where_nothing_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call, some: Catalogue, status: str, written: bool
) -> None:
    trial = Trial.of(Entry("new", "N", ("text",)), status, "model type 'new' is odd")
    monkeypatch.setattr(
        "weight_edit.inspection.catalogue.summary.inspect_all", lambda **_: Catalogue.of([*some.trials, trial])
    )
    before = f"{MADE_BY}\nas before"
    (tmp_path / "page.md").write_text(before)
    done = call("inspect", "--all", "--page", tmp_path / "page.md")
    assert done.code == (0 if written else 4)
    assert ("is as it was" in done.out) != written
    assert ((tmp_path / "page.md").read_text() == before) != written
    assert (tmp_path / "page.json").exists() == written
    if written:
        assert set(Verdicts.read(tmp_path / "page.json").by_type()) == {"gpt2", "new", "t5"}


def test_differences_name_what_is_new_gone_or_judged_otherwise() -> None:
    def verdict(name: str, status: str, reason: str = "") -> Verdict:
        return Verdict(Entry(name, "X", ("text",)), status, reason)

    before = [verdict("a", PROVEN), verdict("b", PROVEN), verdict("c", PROVEN), verdict("d", REFUSED, "one reason")]
    after = [verdict("b", REFUSED, "why"), verdict("c", PROVEN), verdict("d", REFUSED, "another"), verdict("e", PROVEN)]
    found = differences(before, after)
    assert list(map(str, found)) == ["a: is gone", "b: proven before, refused (why)", "e: new, proven"]
    assert [each.loss for each in found] == [True, True, False]


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
