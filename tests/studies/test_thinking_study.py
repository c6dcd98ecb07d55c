"""Edits scored with the thought kept and made anew. The embedded model does not think: its thoughts are put there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import weight_edit.studies.kinds.thinking as kind
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.results import Evaluation
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.studies.kinds.thinking import ANEW, KEPT, PROMPT, THOUGHT, flipped, random_like
from weight_edit.studies.places import Place, place_of
from weight_edit.studies.registry import study_named

OPTIONS = {
    "target": "organism:refused:train",
    "baseline": "organism:answered:train",
    "edits": {"ablate": {}},
    "layer": 3,
    "n": 22,
    "max_thought": 12,
    "limit": 11,
}


def put_in(monkeypatch, text, every=1):
    """Every so manieth prompt is thought about, in the same words."""

    def think(model, prompts, chat_format=None, **limits):
        return dict.fromkeys(prompts[::every], text)

    monkeypatch.setattr(kind, "think", think)


def evaluation(*verdicts):
    answers = tuple(
        Answer(set=name, prompt="ask", answer="", expected=None, verdict=verdict, category=None, finished=True)
        for name, verdict in verdicts
    )
    return Evaluation(
        model="model",
        judge="judge",
        max_new_tokens=8,
        system=None,
        refused=None,
        answered=None,
        over_refused=None,
        harmless_looking=None,
        divergence=None,
        answers=answers,
    )


def test_flipped_are_the_refused_that_are_answered():
    refused, answered, loop = Verdict.REFUSED, Verdict.ANSWERED, Verdict.LOOPING
    before = evaluation(*(("refused", v) for v in (refused, refused, refused, answered)), ("answered", refused))
    after = evaluation(*(("refused", v) for v in (answered, loop, refused, answered)), ("answered", answered))
    rate = flipped(before, after)
    assert (rate.count, rate.total) == (1, 3)
    assert flipped(evaluation(("refused", answered)), evaluation(("refused", answered))) is None


def test_on_the_embedded_model(lab, monkeypatch):
    put_in(monkeypatch, "Let me see.")
    some = lab()
    found = study_named("thinking")(some, OPTIONS)
    by = {(row["direction"], row["scoring"]): row for row in found["rows"]}
    assert by.keys() == {(name, how) for name in ("none", PROMPT, THOUGHT, "random") for how in (KEPT, ANEW)}
    assert by["none", ANEW]["refusal"] == 1.0
    assert by["none", ANEW]["flipped"] == 0.0
    assert by[PROMPT, ANEW]["refusal"] == 0.0
    assert by[PROMPT, ANEW]["flipped"] == 1.0
    assert by["random", ANEW]["flipped"] < 0.2
    assert all(row["flipped_low"] <= row["flipped"] <= row["flipped_high"] for row in by.values() if "flipped" in row)
    for name, gap in found["hidden"].items():
        assert gap["ablate"] == by[name, ANEW]["flipped"] - by[name, KEPT]["flipped"]
    assert json.loads((some.folder / "thinking.json").read_text()) == json.loads(json.dumps(found["rows"]))
    assert (some.folder / "thinking.png").exists()


def test_the_two_directions_are_read_at_two_places(lab, monkeypatch):
    some = lab()
    chat_format = some.format
    prompts = [some.sets["refused"], some.sets["answered"]]
    thoughts = {prompt: "Let me see." for each in prompts for prompt in each.prompts}
    kept = kind.ThoughtFormat(chat_format.tokenizer, thoughts)
    first, second = (kind.difference(some, *prompts, 3, how) for how in (chat_format, kept))
    assert first.metadata["layer"] == second.metadata["layer"] == 3
    assert np.linalg.norm(first.rows) == pytest.approx(1, abs=1e-6)
    difference = first.tensors["target_mean"] - first.tensors["baseline_mean"]
    assert np.allclose(difference, first.tensors["vector"], atol=1e-4)
    assert float(first.rows[0] @ second.rows[0]) < 0.99
    control = random_like(first, 0)
    lengths = [float(np.linalg.norm(each.tensors["vector"])) for each in (first, control)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert torch.equal(*(torch.from_numpy(random_like(first, 0).rows) for _ in range(2)))


def test_a_model_that_does_not_think_is_refused(lab, monkeypatch):
    put_in(monkeypatch, "Let me see.", every=11)
    with pytest.raises(UsageError, match=r"only 2 of 22 prompts.*max_thought"):
        study_named("thinking")(lab(), OPTIONS)


def test_what_the_embedded_model_says_is_no_thought(lab):
    with pytest.raises(UsageError, match="only 0 of 8 prompts"):
        study_named("thinking")(lab(), {**OPTIONS, "n": 8, "max_thought": 8})


def test_without_a_search_the_layer_must_be_said(lab, monkeypatch):
    put_in(monkeypatch, "Let me see.")
    some = replace(lab(), found={})
    with pytest.raises(UsageError, match="give the study a 'layer'"):
        study_named("thinking")(some, {key: value for key, value in OPTIONS.items() if key != "layer"})
    assert place_of(some, layer=2, position="all") == Place(2, None)
