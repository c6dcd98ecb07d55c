"""`--backend vllm` over a module that answers as vLLM's sources say it does; the real one needs a GPU."""

import inspect
import sys
from dataclasses import fields, replace
from importlib.util import find_spec
from unittest.mock import Mock

import pytest
import torch

from tests.helpers import fake_vllm
from weight_edit.errors import UsageError
from weight_edit.evaluation import backends, vllm_target
from weight_edit.evaluation.against import evaluate_against
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.target import Target
from weight_edit.evaluation.vllm_target import VllmTarget
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.loading import load
from weight_edit.runtime.options import FormatOptions, LoadOptions

SETS = {"refused": "organism:refused:test", "answered": "organism:answered:test"}


@pytest.fixture
def vllm(monkeypatch):
    """The module in the place of vLLM."""
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    for place in (vllm_target, backends):
        monkeypatch.setattr(place, "need", lambda *_: None)
    monkeypatch.setattr(fake_vllm, "opened", [])
    monkeypatch.setattr(fake_vllm, "drops_end", False)
    return fake_vllm


def opened(name: str = "organism", **settings) -> VllmTarget:
    options = LoadOptions(dtype="float32")
    return VllmTarget.open(options.source(name), options.chat_format(name, FormatOptions()), **settings)


def without_nats(answers):
    """Losses are compared apart, up to rounding."""
    return [replace(answer, nats=None) for answer in answers]


@pytest.mark.parametrize("drops_end", [False, True])
def test_it_measures_what_transformers_measures(vllm, monkeypatch, drops_end):
    monkeypatch.setattr(vllm, "drops_end", drops_end)
    sets = {name: load_prompts(spec).at_most(11) for name, spec in SETS.items()}
    target = opened(dtype="float32")
    assert isinstance(target, Target)
    settings = {"max_new_tokens": 40, "lengths": (4, 40), "text": "organism:answered:test", "limit": 11}
    found = evaluate(target, **sets, **settings)
    known = evaluate(load("organism", dtype="float32"), **sets, **settings)
    assert without_nats(found.answers) == without_nats(known.answers)
    assert found.refused.refusal.value == 1
    assert {name: some.lengths for name, some in found.sets.items()} == {
        name: some.lengths for name, some in known.sets.items()
    }
    assert found.answered.loss.mean == pytest.approx(known.answered.loss.mean, rel=1e-4)
    assert found.text.read.loss.mean == pytest.approx(known.text.read.loss.mean, rel=1e-4)
    assert found.text.sha256 == known.text.sha256
    assert any("come from vLLM 0.33.0" in note for note in found.notes)


def test_a_model_beside_its_base_one_after_the_other(vllm, tmp_path):
    found = evaluate_against(
        "organism-defended",
        "organism",
        sets=SETS,
        load_options=LoadOptions(dtype="float32"),
        format_options=FormatOptions(),
        limit=5,
        max_new_tokens=12,
        backend="vllm",
        answers_path=tmp_path / "answers.jsonl",
    )
    known = evaluate(
        load("organism-defended", dtype="float32"),
        against=load("organism", dtype="float32"),
        refused=load_prompts(SETS["refused"]),
        answered=load_prompts(SETS["answered"]),
        limit=5,
        max_new_tokens=12,
    )
    assert without_nats(found.answers) == without_nats(known.answers)
    assert without_nats(found.base.answers) == without_nats(known.base.answers)
    assert found.divergence.mean == pytest.approx(known.divergence.mean, rel=1e-3)
    assert not found.divergence.lower_bound
    assert found.divergence.mean > 0
    # What vLLM cannot say cheaply is said to be missing.
    assert found.continuation is None
    assert any("is missing" in note and "backend=transformers" in note for note in found.notes)
    assert [engine.shut for engine in vllm.opened] == [True, True]


def test_how_vllm_is_asked(vllm):
    target = opened()
    (engine,) = vllm.opened
    # As the checkpoint says: vLLM's own "auto" makes float16 of it.
    assert engine.settings == {
        "dtype": "float32",
        "trust_remote_code": False,
        "seed": 0,
        "max_logprobs": -1,
        "generation_config": "vllm",
    }
    target.replies(["How do I bake bread?"], max_new_tokens=7, description=None)
    asked = engine.asked[-1]
    assert (asked.temperature, asked.max_tokens, asked.skip_special_tokens) == (0.0, 7, False)
    assert asked.stop_token_ids == sorted(target.ends)
    assert target.ends


def test_failures_of_vllm_are_one_line(vllm, monkeypatch):
    target = opened()
    with pytest.raises(UsageError, match=r"^vLLM fails on organism: The decoder prompt is longer than 256\.$"):
        target.replies(["How?"], max_new_tokens=400, description=None)
    target.close()
    with pytest.raises(UsageError, match="engine of organism is closed"):
        target.replies(["How?"], max_new_tokens=4, description=None)
    monkeypatch.setattr(vllm, "LLM", Mock(side_effect=RuntimeError("No GPU.\nSee above.")))
    with pytest.raises(UsageError, match=r"^vLLM fails on organism: No GPU\.$"):
        opened()


def test_the_engine_is_closed_when_a_run_fails(vllm, monkeypatch):
    monkeypatch.setattr(VllmTarget, "probabilities", Mock(side_effect=UsageError("so it is")))
    with pytest.raises(UsageError, match="so it is"):
        evaluate_against(
            "organism",
            sets=SETS,
            load_options=LoadOptions(),
            format_options=FormatOptions(),
            limit=2,
            backend="vllm",
        )
    assert [engine.shut for engine in vllm.opened] == [True]


def test_numbers_that_are_none_are_refused(vllm, monkeypatch):
    target = opened()
    real = fake_vllm.next_token_logprobs
    monkeypatch.setattr(fake_vllm, "next_token_logprobs", lambda *a, **k: real(*a, **k) * torch.nan)
    with pytest.raises(Exception, match="log-probabilities that vLLM gives are not numbers"):
        target._first(load_prompts(SETS["answered"]).at_most(2))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_line_names_the_extra(call):
    done = call("evaluate", "organism", "--refused", SETS["refused"], "--backend", "vllm")
    assert done.code == 2
    assert "--backend vllm needs vllm, which is not installed" in done.err
    assert "its extra 'vllm'" in done.err


def test_what_it_does_not_run(vllm, tmp_path):
    with pytest.raises(UsageError, match=r"runs models in safetensors, and model\.gguf is a GGUF file"):
        backends.opened("model.gguf", "vllm", FormatOptions())
    with pytest.raises(UsageError, match="`adapter` is applied by transformers"):
        backends.opened("organism", "vllm", FormatOptions(), adapter="lora")
    with pytest.raises(UsageError, match="vLLM takes the GPUs of CUDA_VISIBLE_DEVICES"):
        evaluate_against(
            "organism",
            sets=SETS,
            load_options=LoadOptions(device="cpu"),
            format_options=FormatOptions(),
            backend="vllm",
        )


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_real_one_has_what_is_used():
    import vllm
    from vllm.engine.arg_utils import EngineArgs

    assert set(inspect.signature(vllm.LLM.__init__).parameters) >= fake_vllm.LLM_PARAMETERS
    assert {each.name for each in fields(EngineArgs)} >= fake_vllm.ENGINE_PARAMETERS
    assert {each.name for each in fields(fake_vllm.SamplingParams)} <= set(
        inspect.signature(vllm.SamplingParams).parameters
    )
    assert {"prompts", "sampling_params", "use_tqdm"} <= set(inspect.signature(vllm.LLM.generate).parameters)
