"""The memory that is free on a model's devices."""

from pathlib import Path

import torch

from weight_edit.runtime.batching import PASS_COST
from weight_edit.runtime.loading import Model

MOST_SEQUENCES = 128
"""Sequences in a pass where the caller sets no limit: more make it no cheaper for each."""

MOST_TOKENS = {"cpu": 4096, "other": 32768}
"""Tokens in a pass where the caller sets no limit, on a processor and on an accelerator: likewise."""

_SHARE = 0.125
"""The part of the free memory that one pass may take."""

_UNTOLD = 32
"""Sequences in a pass where nobody can tell what memory is free."""

_WIDTHS = 32
"""What a pass holds of each token, in widths of the stream, attention and the widest layer included."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(model: Model) -> int | None:
    """The bytes that are free on the devices of a model's weights; None where that cannot be told.

    Of several devices, each counts as the fullest: what a model keeps of tokens is spread as its blocks are.
    """
    devices = {parameter.device for parameter in model.model.parameters()} - {torch.device("meta")}
    found = [_free(device) for device in devices or {model.device}]
    told = [each for each in found if each is not None]
    return min(told) * len(told) if told and len(told) == len(found) else None


def pass_cost(model: Model) -> int:
    """The tokens whose reading costs about what a pass costs however few it reads.

    On an accelerator that is the reading of the weights: its arithmetic is some hundred times faster than its memory.
    """
    return PASS_COST if model.device.type == "cpu" else 8 * PASS_COST


def sequences_at_once(model: Model, tokens: int, read: int) -> int:
    """The sequences that a pass may hold at once, by the memory that is free.

    Args:
        tokens: of the longest sequence.
        read: the tokens of a sequence whose logits are read.
    """
    free = free_memory(model)
    if free is None:
        return _UNTOLD
    size = model.dtype.itemsize
    row = tokens * model.anatomy.d_model * _WIDTHS * size + read * model.vocabulary * (size + 4)
    if model.device.type == "cpu":
        useful = min(MOST_SEQUENCES, MOST_TOKENS["cpu"] // tokens)
    else:
        useful = MOST_TOKENS["other"] // tokens
    return max(1, min(useful, int(_SHARE * free / row)))


def rows_in_waiting(model: Model, tokens: int) -> int:
    """The sequences whose streams may wait between two blocks of a model that lies on disk, by the memory that is free.

    Args:
        tokens: of the longest sequence.
    """
    free = free_memory(model)
    if free is None:
        return _UNTOLD
    # A stream, what a block adds to it, and positions in two forms.
    return max(1, int(2 * _SHARE * free / (4 * tokens * model.anatomy.d_model * model.dtype.itemsize)))


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        # What torch holds on to and does not use is free for us alone.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type != "cpu":
        return None
    told = [each for each in (_available(), _left_in_group()) if each is not None]
    return min(told, default=None)


def _available() -> int | None:
    """What Linux can give without swapping."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _left_in_group() -> int | None:
    """What a container's limit leaves."""
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        # The cache of files counts as used, and gives way.
        kept = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = next(int(line.split()[1]) for line in kept if line.startswith("inactive_file "))
        return int(limit) - int(used) + files
    except (OSError, StopIteration, ValueError, IndexError):
        return None
