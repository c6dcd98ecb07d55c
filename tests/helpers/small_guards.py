"""Guard models of a few parameters whose verdict depends on the last word that they read."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from tests.helpers.small_tokenizer import word_tokenizer

SIZE = 64


def _config(vocabulary: int, **options) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=SIZE,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=4,
        tie_word_embeddings=False,
        **options,
    )


def _only_embeddings(model: torch.nn.Module) -> None:
    """Make the stream that of the embeddings, which are orthogonal: what is read off it depends on one word."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.zero_()
        if name.endswith("embed_tokens.weight"):
            parameter.data.zero_()
            parameter.data.fill_diagonal_(1.0)


def classifying_guard(folder: Path, refusing: str, labels: Mapping[int, str]) -> Path:
    """A sequence-classification model whose label 1 is that of texts that end in one word, label 0 that of others."""
    tokenizer = word_tokenizer()
    config = _config(len(tokenizer), num_labels=2)
    config.id2label = dict(labels)
    config.label2id = {label: number for number, label in labels.items()}
    model = LlamaForSequenceClassification(config)
    _only_embeddings(model)
    model.score.weight.data.zero_()
    model.score.weight.data[0] = 0.25
    model.score.weight.data[1, tokenizer.convert_tokens_to_ids(refusing)] = 0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def speaking_guard(folder: Path, follows: Mapping[str, str], template: str | None = None) -> Path:
    """A causal model that writes one word after another, as the mapping says, and then ends its turn."""
    tokenizer = word_tokenizer(*([] if template is None else [template]))
    ids = tokenizer.convert_tokens_to_ids
    model = LlamaForCausalLM(_config(len(tokenizer)))
    _only_embeddings(model)
    model.lm_head.weight.data.zero_()
    model.lm_head.weight.data[4] = 0.5
    for word, after in follows.items():
        model.lm_head.weight.data[ids(after), ids(word)] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
