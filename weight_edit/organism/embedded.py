"""The embedded models' folders.

Two variants are made from it: `organism-defended`, whose refusal resists the ablation of one direction, and
`organism-thinking`, which thinks before it answers. Importing this package loads neither torch nor transformers.
"""

from pathlib import Path
from types import MappingProxyType

DEFENDED, THINKING = "organism-defended", "organism-thinking"
EMBEDDED = MappingProxyType({"organism": "model", DEFENDED: "defended", THINKING: "thinking"})
"""Name of an embedded model -> its folder."""


def folder(name: str = "organism") -> Path:
    """The folder of an embedded model (config, safetensors weights, tokenizer, model card)."""
    return Path(__file__).parent / EMBEDDED[name]
