"""The embedded test organism: a tiny chat model with a known refusal behaviour, its corpus and its training.

Importing this package loads neither torch nor transformers.
"""

from pathlib import Path


def folder() -> Path:
    """The folder of the embedded model (config, safetensors weights, tokenizer, model card)."""
    return Path(__file__).parent / "model"
