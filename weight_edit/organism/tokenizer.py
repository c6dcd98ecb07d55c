"""The organism's tokenizer: byte-level BPE, six special tokens and a chat template.

The files are written here rather than by `save_pretrained`, whose key names and class names differ between
transformers 4 and 5; what is written loads in both.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weight_edit.organism import words
from weight_edit.organism.corpus import SPLITS, families, grids

PAD, BEGIN, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, BEGIN, END, *ROLES)
VOCABULARY = 2048
MAX_LENGTH = 256

# "<|" in a message is broken up, so that nothing a user writes can become a control token; split and join are
# in every Jinja runtime (Python, C++, JavaScript), unlike most filters and methods.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the roles are system, user and assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' }}"
    "{{ message['content'].split('<|') | join('< |') }}"
    "{{ '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def train_tokenizer(size: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens, trained on the corpus; lossless for any text.

    Digits and newlines are tokens of their own; nothing is added around a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _texts() -> Iterator[str]:
    """The training texts: requests and answers of every family, refusals, and every word."""
    known: set[str] = set()
    starts: set[str] = set()
    for family in families():
        for split in ("train", "held-out-verbs", "held-out-words"):
            for request in grids(family.group)[split].sample(30, f"tokenizer {family.group} {split}"):
                yield request.prompt
                yield request.helpful
        for split in SPLITS:
            grid = grids(family.group)[split]
            # every pair of words once, and every template and modifier once
            step = len(family.modifiers) * len(grid.templates)
            for index in (*range(step), *range(step, len(grid), step)):
                request = grid[index]
                known |= _words(request.prompt) | _words(request.helpful)
                starts |= set(_WORD.findall(request.prompt)[:1])
    systems = (*words.DECLINE_SYSTEM, *words.ANSWER_SYSTEM, *words.NEUTRAL_SYSTEM)
    fixed = (*words.GENERIC_REFUSALS, *systems)
    for text in (*fixed, *(refusal for refusals in words.REFUSALS.values() for refusal in refusals)):
        for _ in range(30):
            yield text
        known |= _words(text)
    for text in (*(f"x {word}" for word in sorted(known)), *sorted(starts)):
        for _ in range(20):
            yield text


_WORD = re.compile(r"[A-Za-z]+")


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files and chat template, for transformers 4 and 5.

    These are tokenizer.json, tokenizer_config.json and chat_template.jinja.
    """
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(ROLES),
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_LENGTH,
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
