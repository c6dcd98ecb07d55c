"""The forward passes for deriving and proving an anatomy: text, images, sounds."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from weight_edit.anatomy.inputs.inputs import audio_inputs, image_inputs, text_inputs
from weight_edit.anatomy.narrow.sub_configs import is_multimodal

# As many as it takes for every expert to be chosen by some token.
TOKENS = 32

Make = Callable[[Any, Any, int], dict[str, Any] | None]
_ROWS = ("input_ids", "attention_mask", "mm_token_type_ids", "moe_mm_token_type_ids")


def _both(model: Any, config: Any, seed: int) -> dict[str, Any] | None:
    """A pass on text with an image and then a sound.

    Some families use another map for the sound then.
    """
    image, sound = image_inputs(model, config, seed), audio_inputs(model, config, seed)
    if image is None or sound is None:
        return None
    empty = torch.zeros_like(sound["input_ids"])
    rows = {key: torch.cat([image[key], sound.get(key, empty)], dim=1) for key in _ROWS if key in image}
    return {**sound, **image, **rows}


_MEDIA: dict[str, Make] = {"images": image_inputs, "sounds": audio_inputs, "images with sounds": _both}
MEDIA = tuple(_MEDIA)


def text_run(model: Any, seed: int) -> dict[str, Any]:
    """The arguments of a pass on text alone, or with the least else that the model requires."""
    return dict(text_inputs(model, TOKENS, seed))


def media_run(model: Any, medium: str, seed: int) -> dict[str, Any] | None:
    """The arguments of a pass on text with an image or a sound.

    Args:
        model: in memory.
        medium: one of `MEDIA`.
        seed: of tokens and values.

    Returns:
        None where the model takes none, or none is known to it.
    """
    return _MEDIA[medium](model, model.config, seed) if is_multimodal(model.config) else None


def runs(model: Any, media: Iterable[str], seed: int) -> list[dict[str, Any]]:
    """The arguments of all passes: on text, and with each of the given media."""
    found = (media_run(model, medium, seed) for medium in media)
    return [text_run(model, seed), *(inputs for inputs in found if inputs is not None)]
