"""Per-layer overrides of a config (`per_layer_config` of transformers)."""

import copy
from typing import Any


def take_overrides(config: Any) -> dict[int, dict[str, Any]] | None:
    """Remove a config's per-layer overrides and return them; None if there are none.

    While they are on it, a config refuses to give the entries that differ. Set `config.per_layer_config` to put them
    back.
    """
    spec = vars(config).get("_heterogeneity_spec")
    if spec is None:
        return None
    overrides: dict[int, dict[str, Any]] = copy.deepcopy(spec.per_layer_overrides)
    config.per_layer_config = None
    return overrides
