"""The groups of modules in a config of compressed-tensors, and the refusal of what is not edited of that format."""

from collections.abc import Mapping
from typing import Any, NoReturn

from weight_edit.checkpoint.files import printable
from weight_edit.errors import UnsupportedError, UsageError

EDITED = (
    "8-bit floats (float-quantized by tensor, channel or block), NVFP4 (nvfp4-pack-quantized), integers of 8 bits "
    "(int-quantized, naive-quantized) and packed ones (pack-quantized of 2 to 8 bits) by tensor, channel or group"
)
"""The forms of compressed-tensors that are edited, in words."""

_AGAIN = "give the checkpoint that it was quantised from (its card names it), and quantise the edited one again"

Weights = Mapping[str, Any]
"""The settings of the weights of a group: `num_bits`, `type`, `strategy`, `group_size` and others."""


def declared(config: Mapping[str, Any]) -> dict[str, list[Weights]]:
    """Format -> the settings of the weights of each group that has it; groups that leave weights alone have none.

    Raises:
        UnsupportedError: a group without a format.
        UsageError: a config that is none of compressed-tensors.
    """
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise UsageError("config.json: compressed-tensors needs config_groups, an object of objects")
    found: dict[str, list[Weights]] = {}
    for group in groups.values():
        weights = group.get("weights")
        if weights is None:
            continue
        if not isinstance(weights, Mapping):
            raise UsageError("config.json: weights of a group in config_groups must be an object")
        form = group.get("format") or config.get("format")
        if not isinstance(form, str):
            refuse(form, "config.json")
        found.setdefault(form, []).append(weights)
    return found


def refuse(form: object, where: str) -> NoReturn:
    """Refuse weights that compressed-tensors has stored in a form that is not edited."""
    raise UnsupportedError(
        f"{where}: the weights are quantised (compressed-tensors, {printable(str(form), 80)}); "
        f"of that format only {EDITED} are edited; {_AGAIN}"
    )


def check_integers(form: str, groups: list[Weights], bits: tuple[int, ...]) -> None:
    """Refuse groups whose weights are no integers of some numbers of bits, by tensor, channel or group.

    Raises:
        UnsupportedError: names what they are.
    """
    for weights in groups:
        given, kind, strategy = weights.get("num_bits"), weights.get("type", "int"), weights.get("strategy")
        if given not in bits or isinstance(given, bool) or kind != "int":
            refuse(f"{form}: {given} bits, {kind}", "config.json")
        if strategy not in ("tensor", "channel", "group") and not (strategy is None and sizes_of([weights])):
            refuse(f"{form}: {given} bits, {kind}, by {strategy}", "config.json")


def sizes_of(groups: list[Weights]) -> frozenset[int]:
    """The sizes of groups of numbers that the weights' settings name."""
    found = (weights.get("group_size") for weights in groups)
    return frozenset(size for size in found if type(size) is int and size > 0)
