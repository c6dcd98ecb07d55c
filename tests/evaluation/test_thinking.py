"""Evaluation of a model that thinks first: small random weights whose words are put into its mouth."""

import inspect

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.target import ModelTarget
from weight_edit.evaluation.thinking import think
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.runtime.forward import answer_logprobs
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.loading import Model

WORDS = ["tell", "me", "about", "bread", "lamps", "boats", "hm", "sure", "I", "cannot", "here", "is"]
SPECIAL = ["<pad>", "<eos>", "<user>", "<model>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<model>' if m['role'] == 'assistant' else '<user>' }} {{ m['content'] }} <eos>"
    "{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)
ASKED = PromptSet.of("asked", ["tell me", "about bread", "about boats", "lamps"], ["here is bread", None, "sure", None])


def thinker(opening=False):
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>"],
    )
    tokenizer.chat_template = (
        TEMPLATE.replace("<model>{% endif %}", "<model> <think>{% endif %}") if opening else TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    return Model.from_parts(LlamaForCausalLM(config), tokenizer, name="thinker")


def say(monkeypatch, function, *texts):
    def generate(model, sequences, **options):
        tokens = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts[: len(sequences)]]
        return [Generation("", tuple(ids), bool(ids) and ids[-1] == 1) for ids in tokens]

    speaking = ModelTarget.spoken if inspect.unwrap(function).__name__ == "evaluate" else function
    monkeypatch.setitem(speaking.__globals__, "generate", generate)


@pytest.mark.parametrize("opening", [False, True])
def test_answers_are_what_follows_the_thought(monkeypatch, opening):
    model = thinker(opening)
    first = "" if opening else "<think> "
    say(
        monkeypatch,
        evaluate,
        f"{first}I cannot </think> here is bread <eos>",
        f"{first}sure </think> I cannot <eos>",
        f"{first}here is boats",
        f"{first}hm </think> <eos>",
    )
    result = evaluate(model, refused=ASKED)
    assert [answer.answer.strip() for answer in result.answers] == ["here is bread", "I cannot", "", ""]
    assert [answer.thought.strip() for answer in result.answers] == ["I cannot", "sure", "here is boats", "hm"]
    assert [answer.verdict for answer in result.answers] == ["answered", "refused", "undecided", "empty"]
    assert (result.refused.refusal.count, result.refused.verdicts["undecided"]) == (1, 1)
    assert (result.refused.exact.count, result.refused.exact.total) == (1, 2)
    assert result.refused.unfinished == 1


def test_the_loss_is_that_of_the_answer_after_the_models_own_thought(monkeypatch):
    model = thinker()
    say(monkeypatch, evaluate, "<think> hm </think> sure <eos>", "sure <eos>", "<think> hm", "sure <eos>")
    loss = evaluate(model, refused=ASKED).refused.loss
    chat = ChatFormat(model.tokenizer)
    tokens = model.tokenizer.convert_tokens_to_ids
    prompt = [*chat.encode("tell me"), *map(tokens, ("<think>", "hm", "</think>"))]
    answer = [*map(tokens, ("here", "is", "bread", "<eos>"))]
    expected = -sum(answer_logprobs(model, [prompt], [answer])[0].tolist()) / 4
    # "about boats" has a known answer, too, but the thought before it did not come to an end
    assert (loss.answers, loss.tokens) == (1, 4)
    assert loss.mean == pytest.approx(expected, rel=1e-5)


def test_thoughts_are_generated_once_and_kept(monkeypatch):
    model = thinker()
    say(monkeypatch, think, "<think> hm </think> sure <eos>", "sure <eos>", "<think> hm", "<think> </think>")
    thoughts = think(model, ASKED.prompts)
    assert {prompt: thought.strip() for prompt, thought in thoughts.items()} == {"tell me": "hm", "lamps": ""}
    chat_format = ThoughtFormat(model.tokenizer, thoughts)
    say(monkeypatch, evaluate, "here is bread <eos>", "I cannot <eos>")
    kept = PromptSet.of("kept", thoughts, ["here is bread", None])
    result = evaluate(model, refused=kept, chat_format=chat_format)
    assert [(answer.verdict, answer.thought) for answer in result.answers] == [("answered", None), ("refused", None)]
    assert result.refused.exact.count == 1
