"""The embedded test organism: a tiny chat model with a known refusal behaviour, its corpus and tokenizer."""
