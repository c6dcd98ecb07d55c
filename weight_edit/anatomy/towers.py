"""A narrow copy of a multimodal config: its text part as narrow as any text model, its towers tiny, sizes that agree."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from weight_edit.anatomy.tower_data import LAYER_INDEXES, LAYERS, MODELS, PROJECTOR, SIZES, TEXT, TEXT_WIDE, TOWERS

Narrow = Callable[[Any], Any]
SPECIAL = re.compile(r"^(?!pad_|bos_|eos_|decoder_).*(token|image|im_|slice|newline|frame|audio|video|vision|speech)")
NUMBERED = re.compile(r"(_id|_ids|_index)$")


def is_multimodal(config: Any) -> bool:
    """Whether a config holds others: towers beside a text part."""
    return any(True for _ in parts(config))


def parts(config: Any) -> Iterator[tuple[str, Any]]:
    """The configs that a config holds, by key."""
    from transformers import PretrainedConfig

    for key, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield key, value


def narrow_multimodal(config: Any, narrow_text: Narrow) -> Any:
    """A copy of a config with towers of a few blocks and small widths, and its text part narrowed by `narrow_text`.

    Args:
        config: a composite, or a text config with towers of its own (Phi-4 multimodal, Chameleon).
        narrow_text: gives a narrow copy of a text config, with all its blocks.
    """
    text = config.get_text_config()
    if text is config:
        narrow = narrow_text(config)
        width = _width(narrow)
    else:
        narrow = copy.deepcopy(config)
        place = next(key for key, part in parts(config) if part is text or part.get_text_config() is text)
        inner = getattr(config, place)
        small = narrow_text(text) if inner is text else narrow_multimodal(inner, narrow_text)
        setattr(narrow, place, small)
        width = _width(small.get_text_config())
        _set(narrow, PROJECTOR, width)
    for key, tower in parts(config):
        if tower is text or tower.get_text_config() is text:
            continue
        setattr(narrow, key, _tower(tower, width))
    _set_layers(narrow, max((_blocks(tower) for key, tower in parts(narrow)), default=LAYERS))
    _set(narrow, MODELS.get(str(config.model_type), {}), width, always=True)
    _drop_quantization(narrow)
    renumber(narrow)
    return narrow


def _width(text: Any) -> int:
    return int(getattr(text, "hidden_size", None) or text.d_model)


def _tower(config: Any, width: int) -> Any:
    tower = copy.deepcopy(config)
    _set(tower, SIZES, width)
    _set(tower, dict.fromkeys(TEXT_WIDE, TEXT), width)
    for key, part in parts(config):
        setattr(tower, key, _tower(part, width))
    _set_layers(tower, LAYERS)
    _set(tower, TOWERS.get(str(config.model_type), {}), width, always=True)
    return tower


def _set(config: Any, sizes: dict[str, Any], width: int, always: bool = False) -> None:
    """Set the keys that a config has (or all of them), in the form (number or pair) in which it has them."""
    for key, size in sizes.items():
        old = getattr(config, key, None)
        if (old is None or isinstance(old, dict)) and not always:
            continue
        if isinstance(getattr(type(config), key, None), property):
            continue
        value = width if isinstance(size, str) and size == TEXT else size
        if isinstance(old, list | tuple) and isinstance(value, int):
            value = type(old)([value] * len(old))
        setattr(config, key, value)


def _blocks(tower: Any) -> int:
    for key in ("num_hidden_layers", "depth", "num_layers", "n_layers"):
        found = getattr(tower, key, None)
        if isinstance(found, int):
            return found
    return LAYERS


def _set_layers(config: Any, blocks: int) -> None:
    """Keep indexes of blocks within a tower of few blocks, which has as many as it names."""
    kinds = getattr(config, "layer_types", None)
    wanted = blocks
    if isinstance(kinds, list | tuple) and not any(True for _ in parts(config)):
        config.layer_types = type(kinds)(dict.fromkeys(kinds))
        wanted = config.num_hidden_layers = len(config.layer_types)
    for key in LAYER_INDEXES:
        value = getattr(config, key, None)
        if isinstance(value, int):
            setattr(config, key, max(-wanted, min(value, wanted - 1)))
        elif isinstance(value, list | tuple):
            setattr(config, key, type(value)(_within(list(value), wanted)))


def _within(indexes: list[int], blocks: int) -> list[int]:
    """As many indexes, of the last blocks; an index that repeats is a layer taken twice."""
    return [max(-blocks, min(index, blocks - 1)) for index in indexes]


def _drop_quantization(config: Any) -> None:
    if hasattr(config, "quantization_config"):
        del config.quantization_config


def special_tokens(config: Any) -> dict[str, Any]:
    """The keys, with a path of parts before them, that number a special token (of an image, say), and their values."""
    found = {}
    for key, value in vars(config).items():
        if SPECIAL.match(key) and NUMBERED.search(key) and key not in LAYER_INDEXES and _numbers(value):
            found[key] = value
    for key, part in parts(config):
        found.update({f"{key}.{inner}": value for inner, value in special_tokens(part).items()})
    return found


def _numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_numbers(item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)


def renumber(config: Any) -> None:
    """Give special tokens distinct numbers at the end of the small vocabulary: the same where they were the same."""
    found = special_tokens(config)
    flat = sorted({number for value in found.values() for number in (value if _listed(value) else [value])})
    vocabulary = config.get_text_config().vocab_size
    new = {old: vocabulary - len(flat) + rank for rank, old in enumerate(flat)}
    for path, value in found.items():
        *holders, key = path.split(".")
        holder = config
        for name in holders:
            holder = getattr(holder, name)
        setattr(holder, key, type(value)(new[number] for number in value) if _listed(value) else new[value])


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)
