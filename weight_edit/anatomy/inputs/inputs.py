"""Inputs for a forward pass of a small model: text alone, with an image, or with a sound."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.inputs.image_data import IMAGES, Images
from weight_edit.anatomy.inputs.sound_data import SOUNDS, Sounds
from weight_edit.anatomy.narrow.sub_configs import parts
from weight_edit.anatomy.narrow.towers import special_tokens

AUDIO_KEYS = ("audio_token_id", "audio_token_index")
IMAGE_KEYS = ("image_token_id", "image_token_index", "image_patch_id", "video_token_index")
TEXT_BEFORE, TEXT_AFTER = 3, 4

WITH_IMAGE = frozenset({"idefics", "kosmos-2", "kosmos-2.5"})
"""Model types whose forward requires an image, though its signature does not say so."""


def text_inputs(model: Any, tokens: int, seed: int, batch: int = 2) -> dict[str, Tensor]:
    """Inputs of a forward pass on text.

    Token ids (batch, tokens) are neither padding nor the special token of an image or a sound. Families whose forward
    never reads text alone get what else it demands: an image (then one sequence, as in `image_inputs`), silence.

    Args:
        model: a model, or its config; only a model tells what its forward demands.
    """
    config = getattr(model, "config", model)
    if isinstance(model, nn.Module) and _demands_image(model, config):
        given = image_inputs(model, config, seed)
        if given is not None:
            return given
    ids = _ordinary(config, (batch, tokens), torch.Generator().manual_seed(seed))
    more = DEMANDS.get(str(config.model_type))
    return {"input_ids": ids, **(more(config, ids) if more else {})}


def _demands_image(model: nn.Module, config: Any) -> bool:
    image = inspect.signature(model.forward).parameters.get("pixel_values")
    return (image is not None and image.default is inspect.Parameter.empty) or config.model_type in WITH_IMAGE


def _silence(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Voxtral Realtime: the silent sound that is added to every token."""
    frames = ids.shape[1] * config.audio_length_per_tok
    return {"input_features": torch.zeros(ids.shape[0], config.audio_config.num_mel_bins, frames)}


def _codes(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Kyutai: a text token and one token of each codebook at every place."""
    codes = torch.arange(ids.numel() * config.num_codebooks).view(*ids.shape, config.num_codebooks)
    return {"input_ids": torch.cat([ids[..., None], codes % (config.codebook_vocab_size - 1)], dim=-1)}


DEMANDS: dict[str, Callable[[Any, Tensor], dict[str, Tensor]]] = {
    "voxtral_realtime": _silence,
    "kyutai_speech_to_text": _codes,
}
"""Model type -> further inputs that a forward on text needs."""


def image_inputs(model: nn.Module, config: Any, seed: int) -> dict[str, Tensor] | None:
    """Inputs of a forward pass on text with an image; None if the model takes no image.

    The values are found from the forward's signature and the tower's sizes; how many tokens an image fills is asked of
    the model's own `get_image_features`.
    """
    generator = torch.Generator().manual_seed(seed)
    takes = set(inspect.signature(model.forward).parameters)
    images = Images(model, config, takes, generator)
    given = IMAGES.get(str(config.model_type), Images.generic)(images)
    if given is None:
        return None
    count = given.pop("image_tokens", None)
    rows = int(count) if count is not None else _rows(model, given, "get_image_features")
    given, place = _around(given, config, rows, _token(config, IMAGE_KEYS), generator)
    # The second is what sends tokens of images to experts of their own.
    for key in ("mm_token_type_ids", "moe_mm_token_type_ids"):
        if key in takes:
            given[key] = place.long()
    return given


def audio_inputs(model: nn.Module, config: Any, seed: int) -> dict[str, Tensor] | None:
    """Inputs of a forward pass on text with a sound; None for families not listed."""
    make = SOUNDS.get(str(config.model_type))
    if make is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    given = make(Sounds(config, set(inspect.signature(model.forward).parameters), generator))
    if given is None:
        return None
    count = given.pop("sound_tokens", None)
    rows = int(count) if count is not None else _rows(model, given, "get_audio_features")
    return _around(given, config, rows, _token(config, AUDIO_KEYS), generator)[0]


def _around(
    given: dict[str, Any], config: Any, rows: int, token: int | None, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Token ids with `rows` special tokens inside text, and their mask, bool (1, tokens)."""
    ids = _ordinary(config, (1, TEXT_BEFORE + rows + TEXT_AFTER), generator)
    place = torch.zeros_like(ids, dtype=torch.bool)
    place[:, TEXT_BEFORE : TEXT_BEFORE + rows] = True
    if token is not None:
        ids[place] = token
    whole = {key: value(place) if callable(value) else value for key, value in given.items()}
    return {**whole, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, place


def _ordinary(config: Any, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    taken: set[int | None] = set()
    for value in special_tokens(config).values():
        taken.update(value if isinstance(value, list | tuple) else [value])
    text = config.get_text_config()
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        for part in (config, text):
            value = getattr(part, key, None)
            taken.update(value if isinstance(value, list | tuple) else [value])
    free = torch.tensor([number for number in range(3, text.vocab_size) if number not in taken])
    return free[torch.randint(0, len(free), shape, generator=generator)]


def _token(config: Any, keys: tuple[str, ...]) -> int | None:
    for key in keys:
        for part in (config, *(part for _, part in parts(config))):
            value = getattr(part, key, None)
            if isinstance(value, int):
                return value
    return None


def _rows(model: nn.Module, given: dict[str, Any], method: str) -> int:
    """The number of stream rows that the model makes of images or sounds."""
    holders: list[Any] = [module for module in model.modules() if hasattr(module, method)]
    # The outer of two may pass on what only the inner names.
    takes = {key for holder in holders for key in inspect.signature(getattr(holder, method)).parameters}
    wanted = {key: value for key, value in given.items() if key in takes}
    with torch.no_grad():
        features = getattr(holders[0], method)(**wanted)
    for name in ("pooler_output", "last_hidden_state", "deepstack_features"):
        if getattr(features, name, None) is not None:
            features = getattr(features, name)
            # One entry for each block of text that images are added at, all of the same rows.
            features = features[0] if name == "deepstack_features" else features
            break
    return sum(piece.numel() // piece.shape[-1] for piece in _tensors(features))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
