"""Models on disk that write a given text after each prompt: what is generated follows from the position alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from weight_edit.prompts.chat import ChatFormat

POSITIONS = 1024
FILLER = " please"
LONGEST = 100
"""Tokens of an answer that does not end, at least."""


def trained_tokenizer(template: str, texts: Sequence[str], special: Sequence[str], eos: str, plain: Sequence[str] = ()):
    """A byte-level tokenizer with the merges of some texts.

    Args:
        special: special tokens.
        plain: tokens that are added and not special.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    core.train_from_iterator([*texts, FILLER * 8] * 4, trainer)
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    others = [token for token in special if token != eos]
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, additional_special_tokens=others)
    fast.chat_template = template
    return fast


def reciting_model(folder: Path, tokenizer, said: Mapping[str, str], ends: Sequence[str], **settings) -> dict[str, str]:
    """A model's folder, and its prompts in the order of `said` with what is written after each.

    Prompts are made longer, so that no two answers stand at the same positions. What comes after a text that does not
    end the answer is that text again.

    Args:
        said: prompt -> text, special tokens spelled out.
        ends: the tokens that the generation config says end an answer.
        settings: of `ChatFormat`.
    """
    chat = ChatFormat(tokenizer, **settings)
    follows: dict[int, int] = {}
    prompts: dict[str, str] = {}
    free = 0
    for prompt, text in said.items():
        asked = prompt
        while len(chat.encode(asked)) <= free:
            asked += FILLER
        written = tokenizer.encode(text, add_special_tokens=False)
        if not text.endswith(tuple(ends)):
            written = written * (1 + LONGEST // len(written))
        start = len(chat.encode(asked)) - 1
        follows |= {start + place: token for place, token in enumerate(written)}
        free = start + len(written) + 2
        prompts[asked] = text
    assert free < POSITIONS
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=POSITIONS, n_layer=1, n_head=1, n_inner=8,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wpe.weight.fill_diagonal_(1.0)
        for position, token in follows.items():
            model.lm_head.weight[token, position] = 1.0
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(ends))
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return prompts
