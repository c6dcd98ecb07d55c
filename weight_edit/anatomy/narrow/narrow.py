"""The narrow config: the same number and kinds of blocks, with small widths."""

import copy
from typing import Any

from weight_edit.anatomy.narrow.narrow_data import (
    CEILINGS,
    FAMILIES,
    HEAD_COUNTS,
    HEADS,
    KEY_VALUE_HEADS,
    ROTARY_KEYS,
    SIZES,
    SPECIAL_TOKENS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    WIDTH_OR_NOT,
)
from weight_edit.anatomy.narrow.overrides import take_overrides

STEP = 8
"""The step between the narrow values of a per-layer list's different sizes."""


def narrow_config(config: Any) -> Any:
    """A copy of a config with the same number and kinds of blocks and small widths.

    The config itself is not changed. What a key means decides its narrow value (`narrow_data`); entries that a config
    computes from others are left to it. Nested groups of settings (DBRX's attention) are narrowed too, nested models
    (towers) are not.
    """
    narrow = copy.deepcopy(config)
    overrides = take_overrides(narrow)
    _narrow_entries(narrow, config, overrides)
    for key, value in FAMILIES.get(getattr(narrow, "model_type", ""), {}).items():
        _set(narrow, key, copy.deepcopy(value))
    if overrides is not None:
        narrow.per_layer_config = overrides
    return narrow


def _narrow_entries(narrow: Any, config: Any, overrides: dict[int, dict[str, Any]] | None) -> None:
    stored = vars(narrow)
    layers = list((overrides or {}).values())
    tables = {key: _table(key, _numbers(config, layers, key), config, layers) for key in stored}
    tokens = _tokens(stored)
    for key in list(stored):
        value = stored[key]
        if value is None:
            continue
        if _is_settings(value):
            _narrow_entries(value, copy.deepcopy(value), None)
        elif isinstance(value, dict) and key.endswith("_config"):
            # Configs of remote code have their groups of settings as plain dictionaries.
            setattr(narrow, key, {k: _looked_up(v, _table(k, _flat([v]), config, [])) for k, v in value.items()})
        elif key in SPECIAL_TOKENS:
            _set(narrow, key, [SPECIAL_TOKENS[key]] if isinstance(value, list) else SPECIAL_TOKENS[key])
        elif key.endswith(TOKENS):
            _set(narrow, key, _looked_up(value, tokens))
        elif table := tables[key]:
            _set(narrow, key, _looked_up(value, table))
            for layer in layers:
                if key in layer:
                    layer[key] = _looked_up(layer[key], table)
    if stored.get("qk_rope_head_dim") and _entry(config, "head_dim") == _entry(config, "qk_rope_head_dim"):
        # Latent attention: the head size that rotary positions are made for.
        _set(narrow, "head_dim", narrow.qk_rope_head_dim)
    stored.pop("quantization_config", None)
    rotary = stored.get("rope_parameters")
    if isinstance(rotary, dict):
        narrow.rope_parameters = _plain_rotary(rotary, stored.get("head_dim") or WIDTH // HEADS)


def _table(key: str, numbers: list[int], config: Any, layers: list[dict[str, Any]]) -> dict[int, int]:
    """Value of a key -> its narrow value; empty for a key that is no size.

    Different values stay different: sizes of a per-layer list keep their order.
    """
    if key in WIDTH_OR_NOT and numbers == [_entry(config, "hidden_size")]:
        return {numbers[0]: WIDTH}
    if key in HEAD_COUNTS:
        return {number: HEADS * (rank + 1) for rank, number in enumerate(numbers)}
    if key in SIZES:
        return {number: SIZES[key] + STEP * rank for rank, number in enumerate(numbers)}
    if key in CEILINGS:
        return {number: min(number, CEILINGS[key]) for number in numbers}
    if key in KEY_VALUE_HEADS:
        heads = KEY_VALUE_HEADS[key]
        all_heads = _table(config.attribute_map.get(heads, heads), _numbers(config, layers, heads), config, layers)
        return {number: all_heads.get(number, min(number, HEADS // 2)) for number in numbers}
    return {}


def _numbers(config: Any, layers: list[dict[str, Any]], key: str) -> list[int]:
    return _flat([_entry(config, key), *(layer[key] for layer in layers if key in layer)])


def _flat(values: list[Any]) -> list[int]:
    """The distinct positive values among numbers and lists of numbers, ascending."""
    flat = [number for value in values for number in (value if isinstance(value, list | tuple) else [value])]
    if not all(_is_number(number) or number is None for number in flat):
        return []
    return sorted({number for number in flat if number and number > 0})


def _looked_up(value: Any, table: dict[int, int]) -> Any:
    if isinstance(value, list | tuple):
        return [table.get(number, number) for number in value] if table else value
    return table.get(value, value) if table else value


def _entry(config: Any, key: str) -> Any:
    """A config's entry, or None; the common value where layers override it."""
    return vars(config).get(config.attribute_map.get(key, key))


def _tokens(stored: dict[str, Any]) -> dict[int, int]:
    """Give special ids beyond the vocabulary distinct ids at its end."""
    special = _flat([value for key, value in stored.items() if key.endswith(TOKENS) and key not in SPECIAL_TOKENS])
    above = [number for number in special if number >= VOCABULARY]
    return {number: max(VOCABULARY - 1 - rank, len(SPECIAL_TOKENS)) for rank, number in enumerate(above)}


def _plain_rotary(parameters: dict[str, Any], head: int) -> dict[str, Any]:
    """Rotary parameters without their scaling.

    Lists of a scaling have the real model's width, and positions write nothing to the stream.

    Positions write nothing to the stream.
    """
    if any(isinstance(value, dict) for value in parameters.values()):
        return {
            kind: _plain_rotary(value, head) if isinstance(value, dict) else value for kind, value in parameters.items()
        }
    if not parameters:
        return {}
    kept: dict[str, Any] = {key: parameters[key] for key in ROTARY_KEYS if key in parameters}
    if parameters.get("original_max_position_embeddings"):
        kept["original_max_position_embeddings"] = CEILINGS["original_max_position_embeddings"]
    factor = kept.get("partial_rotary_factor")
    if factor and int(head * factor) % 2:
        # Rotary positions come in pairs; the half keeps rounding from falling below the number.
        kept["partial_rotary_factor"] = (int(head * factor) + 1.5) / head
    return {"rope_type": "default", **kept}


def _is_settings(value: Any) -> bool:
    """Whether a value is a nested group of settings and no model's config."""
    from transformers import PretrainedConfig

    return isinstance(value, PretrainedConfig) and not value.model_type


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _set(config: Any, key: str, value: Any) -> None:
    """Set an entry, unless the config computes it from others (Falcon's head size)."""
    entry = getattr(type(config), key, None)
    if not (isinstance(entry, property) and entry.fset is None):
        setattr(config, key, value)
