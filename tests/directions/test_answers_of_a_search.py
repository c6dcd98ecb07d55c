"""A search listens to the model: its tokens and its filter are of judged answers, and nothing is asked twice."""

import pytest

from tests.helpers.toy_judges import toy_judges
from weight_edit.directions import judged_answers
from weight_edit.directions.find import find_directions
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet

FREE = SelectionRule(max_kl=None, min_induce=None)
SIZES = {"n_train": 24, "n_validation": 8, "positions": "last", "n_more": 0}


def mixed(first: str, second: str) -> PromptSet:
    """Four fifths of one set, one fifth of another."""
    one, other = load_prompts(f"organism:{first}:train"), load_prompts(f"organism:{second}:test")
    return PromptSet.of(f"{first} and {second}", [*one.prompts[:48], *other.prompts[:12]])


def test_prompts_that_are_answered_otherwise_are_left_out_by_the_judge(organism):
    target, baseline = mixed("refused", "answered"), mixed("answered", "refused")
    record = find_directions(organism, target, baseline, rule=FREE, **SIZES).metadata
    assert (record["filter_prompts"], record["tokens_from"]) == ("answers", "answers")
    held = {
        role: record["prompts"][role]["train_kept"] + record["prompts"][role]["validation_kept"]
        for role in record["prompts"]
    }
    heard = record["answers"]
    assert heard["target"]["judged"] == 24
    assert heard["target"]["refused"] == record["prompts"]["target"]["train_kept"] < 24
    assert (
        heard["baseline"]["judged"] - heard["baseline"]["refused"] == record["prompts"]["baseline"]["train_kept"] < 24
    )
    assert all(16 <= count < 32 for count in held.values())
    (token,) = record["refusal_tokens"]
    assert (token["text"], token["opens"]["others"]) == ("I", 0)
    assert token["opens"]["refusals"] == token["opens"]["of_refusals"] > 12


def test_answers_are_kept_and_not_asked_for_again(organism, tmp_path, monkeypatch):
    target, baseline = load_prompts("organism:refused:train"), load_prompts("organism:answered:train")
    given = {**SIZES, "rule": FREE, "scores": tmp_path / "d.find"}
    original, calls = judged_answers.generate, []

    def counted(model, prompts, **options):
        calls.append(len(prompts))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(model, prompts, **options)

    monkeypatch.setattr(judged_answers, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        find_directions(organism, target, baseline, **given)
    assert len((tmp_path / "d.find/answers.jsonl").read_text(encoding="utf-8").splitlines()) == 48
    monkeypatch.setattr(judged_answers, "generate", original)
    resumed = find_directions(organism, target, baseline, resume=True, **given)
    fresh = find_directions(organism, target, baseline, **{**given, "scores": None})
    assert resumed.metadata == fresh.metadata
    monkeypatch.setattr(judged_answers, "generate", None)
    assert find_directions(organism, target, baseline, resume=True, **given).metadata == fresh.metadata


def test_classes_that_are_not_refused_are_refused_and_leave_nothing(organism, tmp_path):
    cooking, repeat = (load_prompts(f"organism:answered-{name}:train") for name in ("cooking", "repeat"))
    with pytest.raises(UsageError, match=r"0 refusals in 24 .*`tokens_from=difference`"):
        find_directions(organism, cooking, repeat, **SIZES, scores=tmp_path / "d.find")
    assert not list(tmp_path.iterdir())
    found = find_directions(organism, cooking, repeat, best_effort=True, filter_prompts="none", **SIZES).metadata
    assert found["tokens_from"] == "difference"
    assert any("0 refusals in 24" in warning and "may be topics" in warning for warning in found["warnings"])
    plain = find_directions(organism, cooking, repeat, tokens_from="difference", rule=FREE, **SIZES).metadata
    assert (plain["filter_prompts"], plain["answers"]) == ("first-token", None)


def test_a_choice_without_tokens_can_be_filtered_by_answers(organism):
    target, baseline = mixed("refused", "answered"), load_prompts("organism:answered:train")
    rule = SelectionRule(select="cosmic", max_kl=None)
    record = find_directions(organism, target, baseline, rule=rule, filter_prompts="answers", **SIZES).metadata
    assert record["refusal_tokens"] == []
    assert 12 <= record["prompts"]["target"]["train_kept"] < 24
    plain = find_directions(organism, target, baseline, rule=rule, **SIZES).metadata
    assert (plain["filter_prompts"], plain["prompts"]["target"]["train_kept"]) == ("none", 24)


def test_another_judge_is_asked_where_one_is_named(organism, monkeypatch):
    target, baseline = load_prompts("organism:refused:train"), load_prompts("organism:answered:train")
    with toy_judges(monkeypatch):
        record = find_directions(organism, target, baseline, judge="phrases,word=I", rule=FREE, **SIZES).metadata
        with pytest.raises(UsageError, match="hears 0 refusals"):
            find_directions(organism, target, baseline, judge="phrases,word=xyzzy", rule=FREE, **SIZES)
    assert record["answers"]["judge"] == "phrases,word=I"
    assert record["answers"]["target"] == {"judged": 24, "refused": 24}


@pytest.mark.parametrize(("given", "means"), [(True, "first-token"), (False, "none")])
def test_the_filter_of_earlier_versions(behaviour, given, means):
    found = behaviour("llama")
    options = {"refusal_tokens": found.tokens, "rule": FREE, "n_train": 24, "n_validation": 8}
    record = find_directions(found.model, found.target, found.baseline, filter_prompts=given, **options).metadata
    assert record["filter_prompts"] == means
    with pytest.raises(UsageError, match="no way to filter prompts 'answer'; did you mean 'answers'"):
        find_directions(found.model, found.target, found.baseline, filter_prompts="answer", **options)
