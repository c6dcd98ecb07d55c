"""By model type: settings of published models that a default config leaves at no effect, or cannot be built without."""

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {}
