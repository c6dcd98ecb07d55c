"""A config cut to the fewest blocks that include every kind of block."""

import copy
import math
from typing import Any

from weight_edit.anatomy.narrow.overrides import take_overrides
from weight_edit.inspection.catalogue.layer_data import (
    BLOCK_COUNTS,
    BOUNDARIES,
    INDICES,
    LAST,
    LEADING,
    LEAST,
    MOST_IN_ORDER,
    NOT_LAYERS,
    PATTERNS,
    PERIODS,
    RUNS,
    SAME_COUNTS,
    SOURCES,
    TRAILING,
)

COUNT = "num_hidden_layers"


def few_layers(config: Any) -> Any:
    """A copy of a config with few blocks, in order, at least one of each kind; widths stay.

    Per-layer lists, lists of layer indices, counts of leading and trailing layers and overrides of single layers are
    cut to fit. A config that does not say how many blocks it has comes back as it is.
    """
    few = copy.deepcopy(config)
    whole: Any = getattr(config, COUNT, None)
    count = next((number for key in BLOCK_COUNTS if (number := vars(config).get(key))), whole)
    if not isinstance(count, int) or count <= LEAST:
        return few
    overrides = take_overrides(few)
    chosen = _chosen(config, count, overrides or {})
    stored = vars(few)
    for key in _per_layer(stored, count):
        setattr(few, key, [stored[key][layer] for layer in chosen])
    for key in SOURCES:
        if stored.get(key):
            given = getattr(config, key)
            setattr(
                few, key, [chosen.index(given[old]) if given[old] in chosen else new for new, old in enumerate(chosen)]
            )
    for key in INDICES:
        if isinstance(stored.get(key), list | tuple):
            setattr(few, key, [new for new, layer in enumerate(chosen) if layer in stored[key]])
    for key in LEADING:
        if isinstance(stored.get(key), int):
            setattr(few, key, sum(layer < stored[key] for layer in chosen))
    for key in TRAILING:
        if isinstance(stored.get(key), int):
            setattr(few, key, sum(layer >= count - stored[key] for layer in chosen))
    for key in LAST:
        if isinstance(stored.get(key), int):
            setattr(few, key, len(chosen) - 1)
    for key, spelled_out in RUNS.items():
        if key in stored:
            setattr(few, key, [[list(stored[spelled_out]), 1]])
    for key in (*BLOCK_COUNTS, *SAME_COUNTS):
        if stored.get(key) == count:
            setattr(few, key, len(chosen))
    setattr(few, COUNT, len(chosen) * (whole // count))
    if overrides is not None:
        few.per_layer_config = {new: overrides[layer] for new, layer in enumerate(chosen) if layer in overrides}
    return few


def _chosen(config: Any, count: int, overrides: dict[int, dict[str, Any]]) -> list[int]:
    """The kept layers: the first ones if these suffice or layers are periodic, else a choice."""
    stored = vars(config)
    period = math.lcm(1, *(stored[key] for key in PERIODS if isinstance(stored.get(key), int) and stored[key] > 0))
    period = math.lcm(period, *(len(stored[key]) for key in PATTERNS if stored.get(key)))
    kinds = [_kind(stored, layer, count, overrides, period) for layer in range(count)]
    boundary = max((stored[key] for key in BOUNDARIES if isinstance(stored.get(key), int)), default=0)
    first = {kind: kinds.index(kind) for kind in reversed(kinds)}
    beginning = max(LEAST, 1 + boundary, 1 + max(first.values()))
    if beginning <= MOST_IN_ORDER or period > 1 or boundary > 0:
        return list(range(min(beginning, count)))
    picked = set(first.values())
    spare = [layer for layer in range(count) if layer not in picked]
    return sorted(picked | set(spare[: max(0, LEAST - len(picked))]))


def _kind(stored: dict[str, Any], layer: int, count: int, overrides: dict[int, dict[str, Any]], period: int) -> str:
    listed = [stored[key][layer] for key in _per_layer(stored, count)]
    own = [stored[key][layer] == layer for key in SOURCES if stored.get(key)]
    members = [layer in stored[key] for key in INDICES if isinstance(stored.get(key), list | tuple)]
    leading = [layer < stored[key] for key in LEADING if isinstance(stored.get(key), int)]
    trailing = [layer >= count - stored[key] for key in TRAILING if isinstance(stored.get(key), int)]
    return repr((listed, own, members, leading, trailing, overrides.get(layer), layer % period))


def _per_layer(stored: dict[str, Any], count: int) -> list[str]:
    """Keys of the lists that have an entry per layer."""
    return [
        key
        for key, value in stored.items()
        if isinstance(value, list | tuple)
        and len(value) == count
        and key not in INDICES
        and key not in SOURCES
        and key not in PATTERNS
        and key not in NOT_LAYERS
        and key not in RUNS
    ]
