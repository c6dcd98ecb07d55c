"""Parts that no traced pass used, so that nothing is known about what they write."""

from collections.abc import Sequence

from torch import nn

from weight_edit.anatomy.trace import Trace
from weight_edit.errors import UnsupportedError
from weight_edit.utils.name_patterns import general

NEVER_USED = ("audio_bos_eos_token", "image_sep")
"""Parameters that no code of their class reads (Qwen2.5-Omni's, HunYuan-VL's)."""


def unused_parts(model: nn.Module, passes: Sequence[Trace], name: str) -> list[str]:
    """One sentence for each unused part that may write to the stream.

    These are whole parts of the model, such as `model.audio_tower`, and, within others, what holds a parameter as wide
    as the stream: projectors of media that were not tried. Towers, whose last blocks are often not used, are of another
    width in a narrow copy.

    Args:
        model: the narrow copy.
        passes: all that were made; the first on text.
        name: of the architecture, for messages.

    Raises:
        UnsupportedError: a parameter as wide as the stream in a block.
    """
    used = {parameter for followed in passes for parameter in followed.graph.used_parameters()}
    idle = {key: value for key, value in model.named_parameters() if key not in used and not _known(key)}
    block = passes[0].calls[0]
    width, blocks = block.returned.shape[-1], block.name.rpartition(".")[0] + "."
    within_use = {above for parameter in used for above in _above(parameter)}
    found: dict[str, bool] = {}
    for parameter, value in idle.items():
        wide = width in value.shape
        if parameter.startswith(blocks):
            if wide:
                raise UnsupportedError(
                    f"{name}: '{parameter}' had no part in any forward pass; what it writes is unknown"
                )
            continue
        top = next((above for above in _above(parameter) if above not in within_use), parameter)
        found[top] = wide or top.count(".") < 2 or found.get(top, False)
    kinds = dict.fromkeys(general(top) for top, could in found.items() if could)
    return [f"'{kind}' had no part in any forward pass" for kind in kinds]


def _known(parameter: str) -> bool:
    return any(part in NEVER_USED for part in parameter.split("."))


def _above(parameter: str) -> list[str]:
    """A parameter and its enclosing modules: `model`, `model.norm`, `model.norm.weight`."""
    parts = parameter.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
