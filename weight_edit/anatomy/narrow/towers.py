"""Narrow copies of multimodal configs: all text blocks, narrow; tiny towers that fit them."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from weight_edit.anatomy.narrow.classes import speaking_config
from weight_edit.anatomy.narrow.overrides import take_overrides
from weight_edit.anatomy.narrow.sub_configs import parts
from weight_edit.anatomy.narrow.tower_data import (
    IMAGE,
    LAYER_INDEXES,
    LAYERS,
    MODELS,
    MROPE,
    PROJECTOR,
    SIZES,
    TEXT,
    TEXT_WIDE,
    TOWERS,
)

BLOCKS = ("num_hidden_layers", "depth", "num_layers", "n_layers", "encoder_layers")
Narrow = Callable[[Any], Any]
SPECIAL = re.compile(r"^(?!pad_|bos_|eos_|decoder_).*(token|image|im_|slice|newline|frame|audio|video|vision|speech)")
NUMBERED = re.compile(r"(_id|_ids|_index)$")


def text_levels(config: Any) -> tuple[tuple[str, ...], ...]:
    """The paths of keys from a config to its text model's config; () is the config itself."""
    text = speaking_config(config).get_text_config()
    return next(_paths(config, text, ()), ((),))


def _paths(config: Any, wanted: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ...]]:
    if config is wanted:
        yield (path,)
    for key, part in parts(config):
        for below in _paths(part, wanted, (*path, key)):
            yield (path, *below)


def narrow_multimodal(config: Any, narrow_text: Narrow) -> Any:
    """A config with tiny towers and its text part narrowed by `narrow_text`.

    Args:
        config: a composite, or a text config with towers of its own (Phi-4 multimodal, Chameleon).
        narrow_text: gives a narrow copy of a text config, with all its blocks.
    """
    text = config.get_text_config()
    if text is config:
        narrow = _narrow_text(config, narrow_text)
        width = _width(narrow)
    else:
        narrow = copy.deepcopy(config)
        place = next(key for key, part in parts(config) if part is text or part.get_text_config() is text)
        inner = getattr(config, place)
        small = _narrow_text(text, narrow_text) if inner is text else narrow_multimodal(inner, narrow_text)
        setattr(narrow, place, small)
        width = _width(small.get_text_config())
        _set(narrow, PROJECTOR, width)
    towers = {key: tower for key, tower in parts(config) if not (tower is text or tower.get_text_config() is text)}
    for key, tower in towers.items():
        setattr(narrow, key, _tower(tower, width))
    if towers and text is not config:
        _set_layers(narrow, max(_blocks(getattr(narrow, key)) for key in towers))
        _scale_resolutions(narrow, config, towers)
    renumber(narrow, config)
    _set(narrow, MODELS.get(str(config.model_type), {}), width, always=True)
    vars(narrow).pop("quantization_config", None)
    return narrow


def _narrow_text(text: Any, narrow_text: Narrow) -> Any:
    """The narrow text part, with rotary kinds shared over its narrow head."""
    narrow = narrow_text(text)
    rotary = getattr(narrow, "rope_parameters", None)
    if isinstance(rotary, dict):
        narrow.rope_parameters = _sections(narrow, rotary, getattr(text, "rope_parameters", None) or {})
    return narrow


def _sections(narrow: Any, rotary: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    if any(isinstance(value, dict) for value in rotary.values()):
        return {
            kind: _sections(narrow, value, real.get(kind) or {}) if isinstance(value, dict) else value
            for kind, value in rotary.items()
        }
    sections = real.get("mrope_section") or MROPE.get(str(narrow.model_type))
    if sections is None:
        return rotary
    head = getattr(narrow, "head_dim", None) or narrow.hidden_size // narrow.num_attention_heads
    half = int(head * rotary.get("partial_rotary_factor", 1.0)) // 2
    shares = [half * section // sum(sections) for section in sections]
    shares[-1] += half - sum(shares)
    kept = {key: real[key] for key in ("mrope_interleaved",) if key in real}
    return {**rotary, **kept, "mrope_section": shares}


def _scale_resolutions(narrow: Any, config: Any, towers: dict[str, Any]) -> None:
    """Scale listed image resolutions with the tower's image size."""
    listed = getattr(config, "image_grid_pinpoints", None)
    old = next((getattr(tower, "image_size", None) for tower in towers.values()), None)
    if listed and isinstance(old, int):
        narrow.image_grid_pinpoints = [[max(1, round(side / old)) * IMAGE for side in pair] for pair in listed]


def _width(text: Any) -> int:
    return int(getattr(text, "hidden_size", None) or text.d_model)


def _tower(config: Any, width: int) -> Any:
    tower = copy.deepcopy(config)
    take_overrides(tower)
    _set(tower, SIZES, width)
    _cut_lists(tower, _blocks(config))
    _set(tower, dict.fromkeys(TEXT_WIDE, TEXT), width)
    for key, part in parts(config):
        setattr(tower, key, _tower(part, width))
    _set_layers(tower, _blocks(tower))
    _set(tower, TOWERS.get(str(config.model_type), {}), width, always=True)
    return tower


def _set(config: Any, sizes: dict[str, Any], width: int, always: bool = False) -> None:
    """Set a config's existing keys (or all keys), as number or pair as before."""
    for path, size in sizes.items():
        *holders, key = path.split(".")
        holder = config
        for name in holders:
            holder = getattr(holder, name)
        old = vars(holder).get(holder.attribute_map.get(key, key))
        if (old is None or isinstance(old, dict)) and not always:
            continue
        if isinstance(getattr(type(holder), key, None), property):
            continue
        value = width if isinstance(size, str) and size == TEXT else copy.deepcopy(size)
        if isinstance(old, list | tuple):
            value = type(old)([value] * len(old) if isinstance(value, int) else value)
        setattr(holder, key, value)


def _blocks(tower: Any) -> int:
    return next((value for key in BLOCKS if isinstance(value := vars(tower).get(key), int)), LAYERS)


def _set_blocks(tower: Any, blocks: int) -> None:
    setattr(tower, next((key for key in BLOCKS if key in vars(tower)), BLOCKS[0]), blocks)


def _cut_lists(tower: Any, before: int) -> None:
    """Cut a tower's per-block lists to one block of each kind, and at least two blocks."""
    lists = [
        key
        for key, value in vars(tower).items()
        if isinstance(value, list | tuple) and len(value) == before > LAYERS and key not in LAYER_INDEXES
    ]
    if not lists:
        return
    kinds = [repr(kind) for kind in zip(*(getattr(tower, key) for key in lists), strict=True)]
    chosen = sorted({kinds.index(kind) for kind in kinds} | set(range(LAYERS)))
    _set_blocks(tower, len(chosen))
    for key in lists:
        value = getattr(tower, key)
        setattr(tower, key, type(value)(value[block] for block in chosen))


def _set_layers(config: Any, blocks: int) -> None:
    """Move block numbers into a tower of few blocks."""
    wanted = blocks
    deep = vars(config).get("deepstack_visual_indexes")
    if deep and _blocks(config) < len(set(deep)):
        # Each of them has a part of its own.
        wanted = len(set(deep))
        _set_blocks(config, wanted)
    for key in LAYER_INDEXES:
        value = getattr(config, key, None)
        if isinstance(value, int):
            setattr(config, key, max(-wanted, min(value, wanted - 1)))
        elif isinstance(value, list | tuple):
            setattr(config, key, type(value)(_within(list(value), wanted)))
    pairs = vars(config).get("deepstack_layer_map")
    if pairs:
        firsts = _within([vision for vision, _ in pairs], wanted)
        config.deepstack_layer_map = [(first, text) for first, (_, text) in zip(firsts, pairs, strict=True)]


def _within(indexes: list[int], blocks: int) -> list[int]:
    """The indexes mapped onto the last `blocks` blocks in order; a surplus repeats block 0."""
    above = sorted({index for index in indexes if index >= 0})
    new = {index: max(0, blocks - len(above) + rank) for rank, index in enumerate(above)}
    return [new[index] if index >= 0 else max(-blocks, index) for index in indexes]


def special_tokens(config: Any) -> dict[str, Any]:
    """Dotted key -> value of every special token (of an image, say) in a config."""
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


def renumber(narrow: Any, config: Any) -> None:
    """Give special tokens ids at the end of the small vocabulary; equal ids stay equal."""
    found = special_tokens(config)
    flat = sorted({number for value in found.values() for number in (value if _listed(value) else [value])})
    vocabulary = narrow.get_text_config().vocab_size
    new = {old: vocabulary - len(flat) + rank for rank, old in enumerate(flat)}
    for path, value in found.items():
        *holders, key = path.split(".")
        holder = narrow
        for name in holders:
            holder = getattr(holder, name)
        setattr(holder, key, type(value)(new[number] for number in value) if _listed(value) else new[value])


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)
