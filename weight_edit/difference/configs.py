"""What the configs of two checkpoints say: architectures, and how wide the residual stream is."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.checkpoint.source import Checkpoint

_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_INSIDE = ("text_config", "llm_config", "language_config", "thinker_config")


def width_of(config: Mapping[str, Any]) -> int | None:
    """The width of the residual stream by a config, or by its part about text; None where it does not say."""
    for part in (config, *(config.get(key) for key in _INSIDE)):
        if isinstance(part, Mapping):
            for key in _WIDTHS:
                if type(part.get(key)) is int and part[key] > 0:
                    return int(part[key])
    return None


def architecture_of(side: Checkpoint) -> str:
    """The name of the model's class, or its type."""
    named = side.config.get("architectures")
    return str(named[0] if isinstance(named, list) and named else side.config.get("model_type", "unknown"))


def notes_on(names: tuple[str, ...], a: Checkpoint, b: Checkpoint, width: int | None) -> Iterator[str]:
    """What makes a comparison less than it could be, a line each."""
    if names[0] != names[1]:
        yield f"the architectures differ: {names[0]} and {names[1]}"
    if not a.tensors.keys() & b.tensors.keys():
        yield "the two have no tensor of the same name"
    if width is None:
        yield "the config does not say how wide the residual stream is, so shared directions were not looked for"
    elif width_of(b.config) != width:
        yield f"the residual streams are {width} and {width_of(b.config)} wide"
