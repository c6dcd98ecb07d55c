"""The narrow copy of a config: as many blocks, of the same kinds, with small widths."""

import copy
from typing import Any

from weight_edit.anatomy.narrow_data import (
    CEILINGS,
    FAMILIES,
    HEADS,
    KEY_VALUE_HEADS,
    SIZES,
    SPECIAL_TOKENS,
    VOCABULARY,
)

STEP = 8
"""How much wider than the smallest each further size of a per-layer list becomes."""


def narrow_config(config: Any) -> Any:
    """A copy of a config with the same number and kinds of blocks and small widths. The config itself is not changed.

    What a key means decides its narrow value (`narrow_data`); entries that a config computes from others are left to
    it. Nested groups of settings (DBRX's attention) are narrowed too, nested models (towers) are not.
    """
    narrow = copy.deepcopy(config)
    overrides = _take_overrides(narrow)
    _narrow_entries(narrow, config, overrides)
    for key, value in FAMILIES.get(getattr(narrow, "model_type", ""), {}).items():
        _set(narrow, key, copy.deepcopy(value))
    if overrides is not None:
        narrow.per_layer_config = overrides
    return narrow


def _narrow_entries(narrow: Any, config: Any, overrides: dict[int, dict[str, Any]] | None) -> None:
    stored = vars(narrow)
    for key in list(stored):
        value = stored[key]
        if key in narrow.attribute_map or value is None:
            continue
        if _is_settings(value):
            _narrow_entries(value, value, None)
        elif key.endswith("_token_id"):
            _set(narrow, key, _token(key, value))
        else:
            others = [layer[key] for layer in (overrides or {}).values() if key in layer]
            smaller = _smaller(key, [value, *others], _heads(config, key))
            if smaller is not None:
                _set(narrow, key, smaller[0])
                values = iter(smaller[1:])
                for layer in (overrides or {}).values():
                    if key in layer:
                        layer[key] = next(values)
    if stored.get("qk_rope_head_dim") and getattr(config, "head_dim", None) == config.qk_rope_head_dim:
        # Latent attention: the head size that rotary positions are made for.
        _set(narrow, "head_dim", narrow.qk_rope_head_dim)
    stored.pop("quantization_config", None)
    rotary = stored.get("rope_parameters")
    if isinstance(rotary, dict):
        narrow.rope_parameters = _plain_rotary(rotary, stored.get("head_dim"))


def _smaller(key: str, values: list[Any], heads: Any) -> list[Any] | None:
    """Narrow values of one key's values (numbers or lists of numbers), None for a key that is no size.

    Different values stay different: sizes of a per-layer list keep their order.
    """
    flat = [number for value in values for number in (value if isinstance(value, list | tuple) else [value])]
    if not flat or not all(_is_number(number) or number is None for number in flat):
        return None
    known = sorted({number for number in flat if number})
    if key in SIZES:
        table = {number: SIZES[key] + STEP * rank for rank, number in enumerate(known)}
    elif key in CEILINGS:
        table = {number: min(number, CEILINGS[key]) for number in known}
    elif key in KEY_VALUE_HEADS:
        table = {number: _shared_heads(number, heads) for number in known}
    else:
        return None
    return [
        [table.get(number, number) for number in value] if isinstance(value, list | tuple) else table.get(value, value)
        for value in values
    ]


def _shared_heads(number: int, heads: Any) -> int:
    if number == 1:
        return 1
    return HEADS if number == heads else HEADS // 2


def _heads(config: Any, key: str) -> Any:
    """The real number of heads that a number of key-value heads belongs to."""
    return getattr(config, KEY_VALUE_HEADS[key], None) if key in KEY_VALUE_HEADS else None


def _token(key: str, value: Any) -> Any:
    if key in SPECIAL_TOKENS:
        return [SPECIAL_TOKENS[key]] if isinstance(value, list) else SPECIAL_TOKENS[key]
    return min(value, VOCABULARY - 1) if _is_number(value) else value


def _plain_rotary(parameters: dict[str, Any], head: Any) -> dict[str, Any]:
    """Rotary parameters without scaling: its lists have the real width, and positions write nothing to the stream."""
    if any(isinstance(value, dict) for value in parameters.values()):
        return {
            kind: _plain_rotary(value, head) if isinstance(value, dict) else value for kind, value in parameters.items()
        }
    kept: dict[str, Any] = {
        key: parameters[key] for key in ("rope_theta", "partial_rotary_factor") if key in parameters
    }
    return {"rope_type": "default", **kept}


def _take_overrides(narrow: Any) -> dict[int, dict[str, Any]] | None:
    """What single layers set otherwise (`per_layer_config`), taken off the config until it is narrow."""
    spec = vars(narrow).get("_heterogeneity_spec")
    if spec is None:
        return None
    overrides = copy.deepcopy(spec.per_layer_overrides)
    narrow.per_layer_config = None
    return overrides


def _is_settings(value: Any) -> bool:
    """Whether a value is a nested group of settings: a config that is no model's own."""
    from transformers import PretrainedConfig

    return isinstance(value, PretrainedConfig) and not value.model_type


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _set(config: Any, key: str, value: Any) -> None:
    """Set an entry, unless the config computes it from others (Falcon's head size)."""
    entry = getattr(type(config), key, None)
    if not (isinstance(entry, property) and entry.fset is None):
        setattr(config, key, value)
