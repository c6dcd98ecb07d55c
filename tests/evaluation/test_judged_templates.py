"""Verdicts end to end: small models that learned to think and answer in the forms of real templates, by `evaluate`."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.small_tokenizer import PARTS, word_tokenizer
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model

HELP, DECLINE = "sure here is the way to make bread", "sorry I cannot make a red house"
# What each is thought of before says the contrary, and a third thought never ends.
PROMPTS = {"make bread": (DECLINE, HELP), "steal cars": (HELP, DECLINE), "paint a house": ("a red blue " * 20, None)}

PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m['content'] }}{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
COMMAND = (
    "{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m['role'] == 'assistant' %}<|CHATBOT_TOKEN|><|START_RESPONSE|>"
    "{{ m['content'] }}<|END_RESPONSE|>{% else %}<|USER_TOKEN|>{{ m['content'] }}{% endif %}<|END_OF_TURN_TOKEN|>"
    "{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
R1 = PLAIN.replace("<assistant>{% endif %}", "<assistant> <think> {% endif %}")

HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
COMMAND_TOKENS = (
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>"),
    *("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
APERTUS = ("<|inner_prefix|>", "<|inner_suffix|>")
# name -> template, special tokens, end of the turn, what stands before a thought, between, and after the answer
TEMPLATES = {
    "harmony": (
        HARMONY,
        HARMONY_TOKENS,
        "<|return|>",
        "<|channel|> analysis <|message|>",
        "<|end|> <|start|> assistant <|channel|> final <|message|>",
        "<|return|>",
    ),
    "command": (
        COMMAND,
        COMMAND_TOKENS,
        "<|END_OF_TURN_TOKEN|>",
        "<|START_THINKING|>",
        "<|END_THINKING|> <|START_RESPONSE|>",
        "<|END_RESPONSE|> <|END_OF_TURN_TOKEN|>",
    ),
    "[THINK]": (PLAIN, ("[THINK]", "[/THINK]"), "<end>", "[THINK]", "[/THINK]", "<end>"),
    "apertus": (PLAIN, APERTUS, "<end>", *APERTUS, "<end>"),
    "opened": (R1, ("<think>", "</think>"), "<end>", "", "</think>", "<end>"),
    "parts": (PARTS, ("<think>", "</think>"), "<end>", "<think>", "</think>", "<end>"),
}  # fmt: skip


def trained(name: str) -> Model:
    """A tiny model that writes what `PROMPTS` says in the form of a template."""
    template, special, end, before, between, after = TEMPLATES[name]
    tokenizer = word_tokenizer(template, special, end)
    chat = ChatFormat(tokenizer)
    rows = []
    for prompt, (thought, answer) in PROMPTS.items():
        said = f"{before} {thought}" if answer is None else f"{before} {thought} {between} {answer} {after}"
        asked = chat.encode(prompt)
        written = tokenizer.encode(said, add_special_tokens=False)
        rows.append((asked + written, len(asked)))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in rows])
    places = torch.arange(width).expand(len(rows), -1)
    lengths = torch.tensor([[start, len(row)] for row, start in rows])
    labels = ids.masked_fill((places < lengths[:, :1]) | (places >= lengths[:, 1:]), -100)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
    return Model.from_parts(model.eval(), tokenizer, name=name)


@pytest.mark.parametrize("name", TEMPLATES)
def test_verdicts_on_what_a_model_wrote(name):
    model = trained(name)
    result = evaluate(
        model, refused=PromptSet.of("all", list(PROMPTS)), max_new_tokens=40, judges=["phrases", "published"]
    )
    bread, cars, house = result.answers
    assert (bread.verdict, bread.answer.strip()) == ("answered", HELP)
    assert (cars.verdict, cars.answer.strip()) == ("refused", DECLINE)
    assert (house.verdict, house.answer, house.finished) == ("undecided", "", False)
    assert bread.thought.strip() == DECLINE
    assert house.judgements["phrases"].reason == "within a thought"
    # The published list reads thoughts too, and cannot tell the first two apart.
    assert bread.judgements["published"].verdict == "refused"
    assert result.refused.judges["published"]["refused"] == 2
    assert result.to_dict()["sets"]["refused"]["judges"]["published"]["refusal"]["count"] == 2
