"""The embedded test organism: a tiny chat model with a known refusal behaviour.

Its corpus and tokenizer are here, too.
"""
