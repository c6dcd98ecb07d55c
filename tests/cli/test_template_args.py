"""Variables of chat templates go everywhere that prompts are rendered, and are recorded there."""

import json
import shutil

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import SWITCHED, channel_tokenizer, response_tokenizer, word_tokenizer
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.directions import load_directions
from weight_edit.directions.find import find_directions
from weight_edit.errors import UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.first_token import first_token_logprobs
from weight_edit.organism.embedded import folder
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.runs.run import run
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.loading import Model

OFF = {"enable_thinking": False}
ENDS = [f"{a} {b}" for a in ("paint", "bread", "cars") for b in ("red", "blue", "a", "the", "I")]
TARGET = PromptSet.of("target", [f"how to make {end}" for end in ENDS])
BASELINE = PromptSet.of("baseline", [f"tell me {end}" for end in ENDS])


@pytest.fixture(scope="module")
def organism(tmp_path_factory):
    """The embedded model with a template that reads a variable."""
    place = tmp_path_factory.mktemp("organism") / "m"
    shutil.copytree(folder(), place)
    (place / "README.md").unlink()
    template = place / "chat_template.jinja"
    template.write_text("{% if brief %}{{ '' }}{% endif %}" + template.read_text())
    return place


def test_a_run_records_them(organism, tmp_path):
    content = {
        "model": str(organism),
        "template_args": {"brief": True},
        "find": {
            "target": "organism:refused:train",
            "baseline": "organism:answered:train",
            "n_train": 22,
            "n_validation": 12,
        },
        "verify": {"limit": 2},
        "evaluate": {"refused": "organism:refused:test", "limit": 4, "max_new_tokens": 8},
    }
    run(parse_recipe(content), tmp_path / "run")
    state = json.loads((tmp_path / "run/run.json").read_text())
    assert state["summary"]["baseline"]["template_args"] == {"brief": True}
    assert "template_args: brief: true" in " ".join((tmp_path / "run/recipe.yaml").read_text().split())
    manifest = read_manifest(tmp_path / "run/model")
    assert [manifest["measurements"][when]["template_args"] for when in ("baseline", "edited")] == [{"brief": True}] * 2
    assert load_directions(tmp_path / "run/directions.safetensors").metadata["chat"]["template_args"] == {"brief": True}
    with pytest.raises(UsageError, match="did you mean 'brief'"):
        run(parse_recipe({**content, "template_args": {"breif": True}}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_command_line_passes_them_on(call, organism, tmp_path):
    given = ("--template-arg", "brief=true")
    out = tmp_path / "d.safetensors"
    sets = ("--target", "organism:refused", "--baseline", "organism:answered", "--n-train", 22, "--n-validation", 12)
    found = call("find", organism, *sets, "--out", out, *given, "--json")
    assert found.code == 0, found.err
    assert found.json["chat"]["template_args"] == {"brief": True}
    prompts = tmp_path / "p.csv"
    prompts.write_text("prompt;id\nHow do I bake bread?;1\n")
    measured = call("evaluate", organism, "--answered", prompts, "--max-new-tokens", 2, *given, "--json")
    assert measured.code == 0, measured.err
    assert measured.json["template_args"] == {"brief": True}
    assert [read["first"] for read in measured.json["prompts_read"]] == ["How do I bake bread?"]
    assert "1 prompts from column 'prompt'" in measured.err
    assert "How do I bake bread?" not in measured.err
    assert call("bake", organism, "--directions", out, "--out", tmp_path / "edited").code == 0
    for verb in (("verify", organism, tmp_path / "edited"), ("push", tmp_path / "edited", "a/b", "--base", organism)):
        dry = ("--dry-run",) if verb[0] == "push" else ("--limit", 2)
        assert call(*verb, *dry, *given, "--quiet").code == 0
        wrong = call(*verb, *dry, "--template-arg", "breif=1")
        assert (wrong.code, "did you mean 'brief'" in wrong.err) == (2, True)


def test_directions_keep_them():
    model = random_model("llama")
    model.tokenizer = word_tokenizer(SWITCHED)
    options = {
        "n_train": 8,
        "n_validation": 4,
        "filter_prompts": False,
        "best_effort": True,
        "refusal_tokens": ["sorry"],
    }
    off = find_directions(
        model, TARGET, BASELINE, chat_format=ChatFormat(model.tokenizer, template_args=OFF), positions="last", **options
    )
    plain_format = ChatFormat(model.tokenizer)
    plain = find_directions(model, TARGET, BASELINE, chat_format=plain_format, positions="last", **options)
    assert off.metadata["chat"] == {"system": None, "template": None, "template_args": OFF, "opening": ""}
    assert plain.metadata["chat"]["template_args"] == {}
    assert not off.direction.equal(plain.direction)


def speaker(tokenizer, seed=0):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
        bos_token_id=None,
    )
    return Model.from_parts(LlamaForCausalLM(config), tokenizer, name="speaker")


def say(monkeypatch, model, *texts):
    def generate(_, sequences, **options):
        tokens = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts[: len(sequences)]]
        return [Generation("", tuple(ids), ids[-1] == model.tokenizer.eos_token_id) for ids in tokens]

    monkeypatch.setattr("weight_edit.evaluation.target.generate", generate)


def test_refusals_behind_special_tokens_are_counted(monkeypatch):
    model = speaker(channel_tokenizer())
    thought = "<|channel|> analysis <|body|> here is the way <|stop|> <|begin|> assistant"
    answer = "<|channel|> final <|body|>"
    say(monkeypatch, model, f"{thought} {answer} I cannot <|done|>", f"{answer} sure here <|done|>")
    asked = PromptSet.of("asked", ["tell me", "make a house"], ["sure here", None])
    result = evaluate(model, refused=asked)
    assert (result.refused.refusal.count, result.refused.verdicts["answered"]) == (1, 1)
    assert [each.answer.strip() for each in result.answers] == ["I cannot", "sure here"]
    assert result.refused.loss.tokens == len(["<|channel|>", "final", "<|body|>", "sure", "here", "<|done|>"])
    assert result.notes == ()
    model = speaker(response_tokenizer())
    say(monkeypatch, model, "<|reply|> I cannot <|/reply|> <|/turn|>")
    assert evaluate(model, refused=asked.take(1)).refused.refusal.count == 1


def test_first_tokens_are_those_of_the_answers_text():
    model = speaker(channel_tokenizer())
    chat = ChatFormat(model.tokenizer)
    ids = [*chat.encode("tell me"), *model.tokenizer.encode("<|channel|> final <|body|>", add_special_tokens=False)]
    assert chat.encode_opened("tell me") == ids
    assert first_token_logprobs(model, PromptSet.of("x", ["tell me"])).equal(next_token_logprobs(model, [ids]))


@pytest.mark.parametrize("template", [SWITCHED, None])
def test_why_all_answers_are_undecided_is_said(monkeypatch, template):
    tokenizer = word_tokenizer(template) if template else word_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    model = speaker(tokenizer)
    asked = PromptSet.of("asked", ["tell me", "make a house"])
    say(monkeypatch, model, "<think> here is", "<think> the way")
    result = evaluate(model, refused=asked, max_new_tokens=8)
    assert len(result.notes) == 1
    assert "all 2 answers to the refused set are undecided: 2 were cut at 8 tokens within a thought" in result.notes[0]
    assert "`max_new_tokens`" in result.notes[0]
    assert ("turn thinking off (`thinking='off'`)" in result.notes[0]) == bool(template)
    assert result.to_dict()["notes"] == list(result.notes)
    say(monkeypatch, model, "<think> here is", "sure here is the way make a house tell me")
    assert evaluate(model, refused=asked).notes == ()
