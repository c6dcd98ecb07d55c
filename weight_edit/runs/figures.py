"""The few figures of a finished step by which one sees how a run goes."""

from collections.abc import Mapping
from typing import Any

_RATES = {"refused": "refusal", "over_refused": "over_refusal"}
"""Prompt set -> name of the rate at which its prompts are refused."""


def figures_of(step: str, result: Any) -> dict[str, Any]:
    """The figures of a step, by name: numbers, and a word where there is no number.

    Args:
        step: its name: "baseline", "find harm".
        result: what it left in `run.json`.
    """
    kind = step.split()[0]
    if not isinstance(result, Mapping):
        return {}
    if kind in ("baseline", "evaluate"):
        return _measured(result)
    named = _NAMED.get(kind, ())
    known = {name: _plain(result.get(name)) for name in named}
    found = {name: value for name, value in known.items() if value is not None}
    if kind == "bake":
        found["tensors"] = len(result["tensors"])
    return found


_NAMED = {
    "find": ("method", "layer", "position", "bypass", "induce", "kl"),
    "search": ("candidates", "judged"),
    "bake": ("edit_class",),
    "verify": ("passed", "leak"),
    "geometry": ("layer", "before", "after"),
}
"""Kind of step -> what of its result is told."""


def _plain(value: Any) -> str | float | None:
    """A number or word; of a figure with an interval its value."""
    value = value.get("value") if isinstance(value, Mapping) else value
    return value if isinstance(value, str | int | float) else None


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    sets = result.get("sets", {})
    found: dict[str, Any] = {
        name: sets[asked]["refusal"]["value"] for asked, name in _RATES.items() if sets.get(asked) is not None
    }
    right = sets.get("answered", {}).get("exact")
    if right is not None:
        found["right"] = right["value"]
    if result.get("divergence") is not None:
        found["kl"] = result["divergence"]["mean"]
    return found
