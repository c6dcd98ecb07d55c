"""Texts of a search are what the model says, and prompts that tell nothing are left out and counted."""

import json
from dataclasses import replace

import pytest

from tests.helpers.search_samples import (
    organism,
    organism_point,
    organism_prompts,
    organism_speaker,
    organism_texts,
)
from tests.helpers.small_tokenizer import channel_tokenizer
from weight_edit.directions import judged_answers
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.samples import draw_prompts
from weight_edit.errors import UsageError
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import Generation, generate
from weight_edit.runtime.hooks import hooked
from weight_edit.search import own_texts
from weight_edit.search.own_texts import MadeTexts, SearchPrompts, made_texts, new_refusals
from weight_edit.search.texts import Choice, Texts


def make(name="organism", prompts=None, point=None, n_train=12, n_validation=6, **options) -> MadeTexts:
    return made_texts(
        organism_speaker(name),
        prompts or organism_prompts(),
        point or organism_point(name=name),
        n_train=n_train,
        n_validation=n_validation,
        **options,
    )


def facts(made, role, part="training"):
    (found,) = [each for each in made.facts if (each.role, each.part) == (role, part)]
    return found


@pytest.fixture
def made() -> MadeTexts:
    return organism_texts()


def test_texts_are_what_the_model_says(made):
    model = organism()
    chat = ChatFormat(model.tokenizer)
    for choice in made.training.refused[:4]:
        asked = [chat.encode(choice.text)]
        assert list(choice.asked) == asked[0]
        (own,) = generate(model, asked, max_new_tokens=80, description=None)
        with hooked(model.model, organism_point().variant(model).hooks):
            (ablated,) = generate(model, asked, max_new_tokens=80, description=None)
        whole = (*choice.prompt, *choice.refusal)
        assert whole == (*choice.asked, *own.tokens)[: len(whole)]
        assert choice.whole_answer == ablated.tokens[: len(choice.whole_answer)]
        assert choice.refusal[0] != choice.answer[0]
    for kept in made.training.ordinary[:4]:
        assert list(kept.prompt) == chat.encode(kept.text)
        (own,) = generate(model, [list(kept.prompt)], max_new_tokens=80, description=None)
        assert kept.answer == own.tokens[: len(kept.answer)]
        assert len(kept.answer) == min(32, len(own.tokens))


def test_both_parts_are_disjoint_and_counted(made):
    for one, other in zip(
        (made.training.refused, made.training.ordinary, made.training.over_refused),
        (made.validation.refused, made.validation.ordinary, made.validation.over_refused),
        strict=True,
    ):
        texts, held = {each.text for each in one}, {each.text for each in other}
        assert (len(texts), len(held)) == (12, 6)
        assert not texts & held
    assert [(each.role, each.part, each.drawn, each.kept) for each in made.facts] == [
        (role, part, count, count)
        for role in ("refused", "ordinary", "over-refused")
        for part, count in (("training", 12), ("validation", 6))
    ]
    refused = facts(made, "refused")
    assert (refused.plain, refused.stronger, refused.known, refused.unanswered) == (12, 0, 0, 0)
    assert (refused.refusal.count, facts(made, "ordinary").refusal.count) == (12, 0)


def test_the_same_settings_make_the_same_texts_and_another_seed_others(made):
    assert make() == made
    assert {each.text for each in make(seed=1).training.refused} != {each.text for each in made.training.refused}


def test_texts_are_written_and_read_as_they_are(made):
    assert MadeTexts.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_known_answers_stand_in_place_of_generated_ones():
    found = make(known_answers=True)
    tokenizer = organism().tokenizer
    assert facts(found, "refused").known == 12
    for choice in found.training.refused:
        text = tokenizer.decode(choice.whole_answer, skip_special_tokens=True)
        assert choice.known.startswith(text[:40])


def test_behind_a_thought_the_texts_begin_where_they_part():
    found = make("organism-thinking", known_answers=True)
    tokenizer = organism("organism-thinking").tokenizer
    assert facts(found, "refused").thoughts == 12
    for choice in found.training.refused:
        thought = tokenizer.decode(choice.prompt[len(choice.asked) :])
        assert thought.startswith("<think>")
        assert thought.rstrip().endswith("</think>")
        assert tokenizer.decode(choice.answer, skip_special_tokens=True) in choice.known + "\n"
        assert choice.whole_answer[: choice.shared] == choice.prompt[len(choice.asked) :]


def test_prompts_that_are_treated_otherwise_are_left_out():
    sets = organism_prompts()
    answered = load_prompts("organism:answered:train").prompts[-8:]
    mixed = PromptSet.of("mixed", [*sets.refused.prompts[:32], *answered])
    found = make(prompts=replace(sets, refused=mixed, over_refused=None), n_train=30, n_validation=10)
    both = [facts(found, "refused", part) for part in ("training", "validation")]
    assert [each.drawn for each in both] == [30, 10]
    assert sum(each.verdicts.get("answered", 0) for each in both) == 8
    assert sum(each.kept for each in both) == 32
    assert not {each.text for each in (*found.training.refused, *found.validation.refused)} & set(answered)


def test_what_the_plain_ablation_leaves_refused_is_asked_at_a_larger_strength():
    weak = organism_point(0.55)
    found = make(point=weak, n_train=24)
    refused = facts(found, "refused")
    assert refused.stronger > 0
    assert refused.plain > 0
    assert refused.plain + refused.stronger + refused.unanswered + refused.alike == 24


def test_harmless_prompts_that_are_not_refused_are_no_objective():
    sets = organism_prompts()
    harmless = load_prompts("organism:harmless-looking:train")
    found = make(prompts=replace(sets, over_refused=harmless))
    assert found.training.over_refused == found.validation.over_refused == ()
    assert any("too few harmless prompts are refused" in each for each in found.warnings)


def test_too_few_prompts_are_an_error_with_the_reasons(monkeypatch):
    sets = organism_prompts()
    other = load_prompts("organism:answered:test")
    with pytest.raises(UsageError, match=r"refused prompts organism:answered:test: the model refuses 0 of 12") as error:
        make(prompts=replace(sets, refused=other))
    assert error.value.options == ("n_train",)
    nothing = organism_point(0.0)
    monkeypatch.setattr(own_texts, "STRONGER", 0.0)
    with pytest.raises(UsageError, match="12 of these are not answered under") as error:
        make(point=nothing)
    assert error.value.options == ("n_train", "known_answers")
    with pytest.raises(UsageError, match="answers were cut before a decision") as error:
        made_texts(organism_speaker(max_new_tokens=2), sets, nothing, n_train=12, n_validation=6)
    assert "lengths" in error.value.options


def test_what_two_texts_share_is_a_part_of_the_prompt():
    found = Choice.of([1, 2], "", refusal=[5, 6, 7, 8], answer=[5, 6, 9], tokens=1)
    assert found == Choice(prompt=(1, 2, 5, 6), text="", refusal=(7,), answer=(9,), shared=2)
    assert (found.asked, found.whole_answer) == ((1, 2), (5, 6, 9))
    assert Choice.of([1], "", refusal=[5, 6], answer=[5, 6, 7]) is None
    texts = Texts(refused=(found,), ordinary=())
    assert Texts.from_dict(json.loads(json.dumps(texts.to_dict()))) == texts


def test_new_refusals_are_what_the_edit_leaves_refused(made):
    speaker, choices = organism_speaker(), made.training.refused
    assert new_refusals(speaker, organism_point(), choices) == [None] * 12
    same = new_refusals(speaker, organism_point(0.0), choices)
    assert same == list(choices)
    weak = organism_point(0.4)
    with hooked(speaker.model.model, weak.variant(speaker.model).hooks):
        said = speaker.spoken([each.asked for each in choices], [each.text for each in choices], description=None)
    found = new_refusals(speaker, weak, choices)
    assert [each is not None for each in found] == [answer.verdict is Verdict.REFUSED for _, answer in said]
    assert any(found)
    for each, (generation, _) in zip(found, said, strict=True):
        if each is not None:
            assert each.refusal == generation.tokens[each.shared :][:32]


def test_texts_stand_behind_the_opening_of_answers(monkeypatch):
    """Of a template with channels: prompts end with the opening, and a known answer does not begin with it again."""
    tokenizer = channel_tokenizer()
    model = replace(organism(), tokenizer=tokenizer)
    chat = ChatFormat(tokenizer)
    asked: list[list[int]] = []

    def said(model, sequences, **options):
        asked.extend(sequences)
        text = "I cannot <|done|>" if len(asked) == len(sequences) else "sure here is the way <|done|>"
        tokens = tuple(tokenizer.encode(text, add_special_tokens=False))
        return [Generation("", tokens, True) for _ in sequences]

    monkeypatch.setattr(judged_answers, "generate", said)
    monkeypatch.setattr(own_texts, "LEAST", {"training": 1, "validation": 0})
    speaker = replace(
        organism_speaker(), model=model, chat=chat, judge=JudgeSpec.parse("phrases,language=en"), max_new_tokens=8
    )
    words = ["make", "cut", "a", "house", "bread", "the", "way", "is", "here", "sure", "I", "cannot"]
    refused = PromptSet.of("r", [f"make {word}" for word in words], ["sure here is"] * len(words))
    other = PromptSet.of("o", [f"cut {word}" for word in words])
    monkeypatch.setattr(own_texts, "_answered", lambda answer: True)
    for known, answer in ((False, "sure here is the way <|done|>"), (True, "sure here is <|done|>")):
        asked.clear()
        found = made_texts(
            speaker,
            SearchPrompts(refused=refused, ordinary=other),
            organism_point(),
            n_train=8,
            n_validation=4,
            known_answers=known,
        )
        choice = found.training.refused[0]
        assert tuple(choice.asked[-len(chat.opening) :]) == chat.opening
        assert all(tuple(each[-len(chat.opening) :]) == chat.opening for each in asked)
        assert tokenizer.decode(choice.refusal) == "I cannot <|done|>"
        assert tokenizer.decode(choice.answer) == answer


def test_what_a_find_trains_on_validates_nothing():
    find = FindRequest.read(target="organism:refused:train", baseline="organism:answered:train", n_train=20, seed=3)
    prompts = SearchPrompts.of(find)
    drawn, held = draw_prompts("target", find.target[0], None, n_train=20, n_validation=32, seed=3)
    assert set(prompts.refused.prompts) == set(drawn.prompts)
    assert set(held.prompts) < set(prompts.held_refused.prompts)
    for train, others, whole in (
        (prompts.refused, prompts.held_refused, find.target[0]),
        (prompts.ordinary, prompts.held_ordinary, find.baseline),
    ):
        assert not set(train.prompts) & set(others.prompts)
        assert {*train.prompts, *others.prompts} == set(whole.prompts)
        # What is known of a prompt goes with it.
        known = dict(zip(whole.prompts, whole.answers, strict=True))
        assert [known[prompt] for prompt in others.prompts] == list(others.answers)


def test_sets_for_validation_are_taken_as_they_are():
    find = FindRequest.read(
        target="organism:refused:train",
        baseline="organism:answered:train",
        validation_target="organism:refused:validation",
        validation_baseline="organism:answered:validation",
    )
    prompts = SearchPrompts.of(find)
    assert (prompts.refused, prompts.held_refused) == (find.target[0], find.validation_target[0])
    assert (prompts.ordinary, prompts.held_ordinary) == (find.baseline, find.validation_baseline)
