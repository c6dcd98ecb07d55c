"""Edits of the embedded model that thinks, scored in the four conditions of its thoughts."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import weight_edit.studies.kinds.thinking as kind
from tests.helpers.random_models import random_model
from tests.studies.conftest import organism_set
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model, load
from weight_edit.studies.kinds.thinking import (
    ALONE,
    ANEW,
    CONDITIONS,
    KEPT,
    PROMPT,
    REMOVED,
    THOUGHT,
    Measured,
    against_kept,
    flipped,
    random_like,
    told,
)
from weight_edit.studies.lab import Lab
from weight_edit.studies.places import Place, place_of
from weight_edit.studies.registry import study_named

OPTIONS = {
    "target": "organism:refused:train",
    "baseline": "organism:answered:train",
    "edits": {"taken off": {"kind": "add", "strength": -1}},
    "layer": 5,
    "n": 22,
    "max_thought": 40,
    "limit": 11,
}
REFUSED, ANSWERED, UNDECIDED = Verdict.REFUSED, Verdict.ANSWERED, Verdict.UNDECIDED


@pytest.fixture(scope="session")
def thinker() -> Model:
    """The embedded model that thinks."""
    return load("organism-thinking", dtype="float32")


@pytest.fixture
def thinking_lab(thinker, tmp_path) -> Lab:
    """Eleven requests of each kind for it."""
    return Lab(
        model=thinker,
        format=ChatFormat(thinker.tokenizer),
        found={},
        sets={name: organism_set(name, "test", 11) for name in ("refused", "answered")},
        folder=tmp_path / "study",
        max_new_tokens=40,
    )


def asked(*verdicts, name="refused", thought=None):
    return tuple(
        Answer(
            set=name,
            prompt=f"ask {number}",
            answer="" if verdict is UNDECIDED else "so",
            expected=None,
            verdict=verdict,
            category=None,
            finished=True,
            thought=thought,
        )
        for number, verdict in enumerate(verdicts)
    )


def measured(*verdicts, **more) -> Measured:
    return Measured(answers=asked(*verdicts, **more), losses={})


def test_flipped_are_the_refused_that_are_answered():
    before = asked(REFUSED, REFUSED, REFUSED, ANSWERED) + asked(REFUSED, name="answered")
    after = asked(ANSWERED, Verdict.LOOPING, REFUSED, ANSWERED) + asked(ANSWERED, name="answered")
    rate = flipped(before, after)
    assert (rate.count, rate.total) == (1, 3)
    assert flipped(asked(ANSWERED), asked(ANSWERED)) is None


def test_conditions_are_compared_on_requests_that_both_bases_refuse():
    before = dict.fromkeys(CONDITIONS, measured(REFUSED, REFUSED, REFUSED, REFUSED))
    before[REMOVED] = measured(REFUSED, REFUSED, UNDECIDED, ANSWERED)
    after = dict.fromkeys(CONDITIONS, measured(REFUSED, REFUSED, REFUSED, ANSWERED))
    after[ANEW] = measured(ANSWERED, ANSWERED, ANSWERED, REFUSED)
    after[REMOVED] = measured(ANSWERED, REFUSED, ANSWERED, ANSWERED)
    found = against_kept(before, after)
    assert found.keys() == {REMOVED, ANEW, ALONE}
    keys = ("value", "both", "kept_only", "here_only", "neither", "p")
    assert [found[ANEW][key] for key in keys] == [0.5, 0, 1, 3, 0, 0.625]
    assert [found[REMOVED][key] for key in keys] == [0.5, 0, 0, 1, 1, 1.0]
    assert found[ALONE]["value"] == 0
    nothing = dict.fromkeys(CONDITIONS, measured(ANSWERED))
    assert against_kept(nothing, nothing) == {}


def test_p_values_are_corrected_for_all_rows():
    rows = [
        {"edit": "none"},
        {"edit": "a", "flipped_p": 0.02, "flipped_difference": 0.5},
        {"edit": "b", "flipped_p": 0.001, "flipped_difference": -0.5},
        {"edit": "c", "flipped_p": 0.03, "flipped_difference": 0.5},
    ]
    found = told(rows)
    assert "told" not in found[0]
    assert [row["flipped_p_holm"] for row in found[1:]] == pytest.approx([0.04, 0.003, 0.04])
    assert [row["told"] for row in found[1:]] == ["more", "fewer", "more"]
    assert [row["told"] for row in told([*rows, {**rows[3], "flipped_p": 0.5}])[1:]] == ["no", "fewer", "no", "no"]


def test_the_four_conditions_of_the_embedded_model(thinking_lab):
    found = study_named("thinking")(thinking_lab, OPTIONS)
    by = {(row["direction"], row["condition"]): row for row in found["rows"]}
    assert by.keys() == {(name, how) for name in ("none", PROMPT, THOUGHT, "random") for how in CONDITIONS}
    base = {how: by["none", how] for how in CONDITIONS}
    assert [base[how]["refusal"] for how in (KEPT, ANEW, ALONE)] == [1, 1, 1]
    assert base[ANEW]["new_thoughts"] == 0
    # Without its thought the model still thinks: it was never shown an empty one.
    assert base[REMOVED]["thought_anyway"] == 11
    assert by[THOUGHT, KEPT]["flipped"] == 1
    assert by[THOUGHT, KEPT]["told"] == "more"
    assert by[THOUGHT, ALONE]["flipped"] < by[THOUGHT, ANEW]["flipped"] < 1
    assert by[PROMPT, KEPT]["flipped"] == by["random", KEPT]["flipped"] == 0
    # A thought that came to no end is no thought that could stand alone.
    assert by[THOUGHT, ALONE]["undecided"] >= by[THOUGHT, ANEW]["no_thought"] > 0
    assert all(row["flipped_low"] <= row["flipped"] <= row["flipped_high"] for row in by.values() if "flipped" in row)
    apart = found["against_kept"][THOUGHT]["taken off"]
    assert apart.keys() == {REMOVED, ANEW, ALONE}
    assert apart[ALONE]["value"] == pytest.approx(by[THOUGHT, ALONE]["flipped"] - by[THOUGHT, KEPT]["flipped"])
    folder = thinking_lab.folder
    assert json.loads((folder / "thinking.json").read_text()) == json.loads(json.dumps(found["rows"]))
    assert (folder / "thinking.png").exists()


def test_each_condition_has_its_own_prompts_and_edit(thinking_lab, monkeypatch):
    seen = []
    real = kind.evaluate

    def evaluate(model, *, chat_format, **settings):
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())
        texts = [model.tokenizer.decode(chat_format.encode(each)) for each in settings["refused"].prompts]
        seen.append((hooks > 0, texts, settings["max_new_tokens"]))
        return real(model, chat_format=chat_format, **settings)

    monkeypatch.setattr(kind, "evaluate", evaluate)
    thoughts = Counter()
    real_think = kind.think

    def think(model, prompts, *given, **settings):
        thoughts.update(prompts)
        return real_think(model, prompts, *given, **settings)

    monkeypatch.setattr(kind, "think", think)
    study_named("thinking")(thinking_lab, {**OPTIONS, "control": False})
    assert set(thoughts.values()) == {1}
    bases, edited = [some for some in seen if not some[0]], [some for some in seen if some[0]]
    assert len(bases) == 3 + 1
    assert len(edited) == 2 * 3
    for (_, base, room), (_, texts, same) in zip(bases[:3], edited[:3], strict=True):
        assert (texts, same) == (base, room)
    kept, removed, anew, alone = bases
    assert all(text.endswith("\n</think>\n\n") and "The user asks" in text for text in kept[1])
    assert all(text.endswith("<think>\n\n</think>\n\n") and "The user asks" not in text for text in removed[1])
    assert all("think>" not in text for text in anew[1])
    # The edited model's thoughts, without those that are the base's own.
    assert alone[1]
    assert all(text.endswith("</think>\n\n") for text in alone[1])
    assert not set(alone[1]) & set(kept[1])
    assert (kept[2], removed[2], anew[2], alone[2]) == (40, 80, 80, 40)


def test_new_thoughts_stand_alone_where_there_are_some(thinking_lab, monkeypatch):
    prompts = [f"ask {number}" for number in range(4)]
    thoughts = dict.fromkeys(prompts, "as before")
    said = asked(ANSWERED, ANSWERED, REFUSED, UNDECIDED)
    new = ("as before", "else", "else", "no end")
    anew = [replace(answer, thought=thought) for answer, thought in zip(said, new, strict=True)]
    given = []

    def measured_again(lab, sets, chat_format, steps, options):
        given.append((sets["refused"].prompts, chat_format.thoughts, steps))
        return Measured(answers=asked(REFUSED, ANSWERED, ANSWERED)[1:], losses={})

    monkeypatch.setattr(kind, "_measured", measured_again)
    found = kind._alone(
        thinking_lab,
        {"refused": PromptSet.of("some", prompts)},
        None,
        anew=Measured(answers=tuple(anew), losses={}),
        thoughts=thoughts,
        kept=measured(REFUSED, REFUSED, REFUSED, REFUSED),
    )
    assert given == [(tuple(prompts[1:3]), dict.fromkeys(prompts[1:3], "else"), [])]
    assert [answer.verdict for answer in found.answers] == [REFUSED, ANSWERED, ANSWERED, UNDECIDED]
    assert [answer.prompt for answer in found.answers] == prompts


def test_the_two_directions_are_read_at_two_places(thinking_lab):
    chat_format = thinking_lab.format
    prompts = [thinking_lab.sets["refused"], thinking_lab.sets["answered"]]
    thoughts = {prompt: "Let me see." for each in prompts for prompt in each.prompts}
    kept = kind.ThoughtFormat(chat_format.tokenizer, thoughts)
    first, second = (kind.difference(thinking_lab, *prompts, 3, how) for how in (chat_format, kept))
    assert first.metadata["layer"] == second.metadata["layer"] == 3
    assert np.linalg.norm(first.rows) == pytest.approx(1, abs=1e-6)
    difference = first.tensors["target_mean"] - first.tensors["baseline_mean"]
    assert np.allclose(difference, first.tensors["vector"], atol=1e-4)
    assert float(first.rows[0] @ second.rows[0]) < 0.99
    control = random_like(first, 0)
    lengths = [float(np.linalg.norm(each.tensors["vector"])) for each in (first, control)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert torch.equal(*(torch.from_numpy(random_like(first, 0).rows) for _ in range(2)))


def test_a_model_that_does_not_think_is_refused(lab, thinking_lab):
    with pytest.raises(UsageError, match=r"only 0 of 8 prompts.*max_thought"):
        study_named("thinking")(lab(), {**OPTIONS, "n": 8, "max_thought": 8})
    model = random_model("llama")
    random = replace(thinking_lab, model=model, format=ChatFormat(model.tokenizer))
    with pytest.raises(UsageError, match="only 0 of 8 prompts"):
        study_named("thinking")(random, {**OPTIONS, "n": 8, "max_thought": 4})
    # A thought that is too long is none.
    with pytest.raises(UsageError, match="only 0 of 22 prompts"):
        study_named("thinking")(thinking_lab, {**OPTIONS, "max_thought": 4})


def test_a_run_that_turns_thinking_off_has_no_thoughts_to_compare(thinking_lab):
    off = replace(thinking_lab, format=thinking_lab.format.with_thinking("off"))
    with pytest.raises(UsageError, match="compares thoughts, which `thinking` turns off"):
        study_named("thinking")(off, OPTIONS)


def test_without_a_search_the_layer_must_be_said(thinking_lab):
    with pytest.raises(UsageError, match="give the study a 'layer'"):
        study_named("thinking")(thinking_lab, {key: value for key, value in OPTIONS.items() if key != "layer"})
    assert place_of(thinking_lab, layer=2, position="all") == Place(2, None)
