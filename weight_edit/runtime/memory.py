"""The memory that is free on a model's devices, and how much of a question fits there at once."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from weight_edit.runtime.batching import PASS_COST
from weight_edit.runtime.loading import Model
from weight_edit.runtime.processes import memory_share

MOST_SEQUENCES = 128
"""Sequences in a pass where the caller sets no limit: more make it no cheaper for each."""

MOST_TOKENS = {"cpu": 4096, "other": 32768}
"""Tokens in a pass where the caller sets no limit, on a processor and on an accelerator: likewise."""

_SHARE = 0.125
"""The part of the free memory that one pass may take."""

_SHARE_OF_CACHE = 0.5
"""The part of the free memory that a cache of keys and values may take, while it is copied too."""

_WAITING_LOGITS = 1 << 32
"""Bytes of logits that may wait in a temporary file."""

_UNTOLD = 32
"""Sequences in a pass where nobody can tell what memory is free."""

_WIDTHS = 32
"""What a pass holds of each token, in widths of the stream, attention and the widest layer included."""

_CACHED = 4
"""The keys of a token in a layer, and its values, in widths of the stream: as many as any model is known to keep."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(model: Model) -> int | None:
    """The bytes that are free on the devices of a model's weights; None where that cannot be told.

    Of several devices, each counts as the fullest: what a model keeps of tokens is spread as its blocks are.
    """
    devices = {parameter.device for parameter in model.model.parameters()} - {torch.device("meta")}
    return _free_on(devices or {model.device})


def classified_at_once(module: nn.Module, tokens: int, width: int) -> int:
    """The sequences that a pass of a classifier may hold at once, by the memory that is free.

    Args:
        tokens: of the longest sequence.
        width: of its stream.
    """
    devices = {parameter.device for parameter in module.parameters()}
    free = _free_on(devices)
    row = tokens * width * _WIDTHS * next(module.parameters()).dtype.itemsize
    return _UNTOLD if free is None else max(1, min(MOST_SEQUENCES, int(_SHARE * free / row)))


def _free_on(devices: Iterable[torch.device]) -> int | None:
    found = [_free(device) for device in devices]
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
    # Sequences without tokens are refused where batches are made of them.
    tokens = max(1, tokens)
    row = tokens * _token_bytes(model) + read * _logits_bytes(model)
    if model.device.type == "cpu":
        useful = min(MOST_SEQUENCES, _most_tokens(model) // tokens)
    else:
        useful = _most_tokens(model) // tokens
    return max(1, min(useful, int(_SHARE * free / row)))


def differentiated_at_once(model: Model, tokens: int, read: int) -> int:
    """The sequences that a pass and its backward pass may hold at once, by the memory that is free.

    What a block holds of a token is held of every block until the backward pass comes to it, and logits are held in
    float32, with their probabilities and slopes.

    Args:
        tokens: of the longest sequence.
        read: the tokens of a sequence whose logits are read.
    """
    free = free_memory(model)
    if free is None:
        return _UNTOLD // 4
    tokens = max(1, tokens)
    row = tokens * model.anatomy.n_layers * _token_bytes(model) + 3 * read * 4 * model.vocabulary
    return max(1, min(_most_tokens(model) // tokens, int(2 * _SHARE * free / row)))


def rows_in_waiting(model: Model, tokens: int, read: int) -> int:
    """The sequences that may wait between two blocks of a model that lies on disk, by the memory that is free.

    Args:
        tokens: of the longest sequence.
        read: the tokens of a sequence whose logits are read; on a processor they wait in a file.
    """
    free = free_memory(model)
    if free is None:
        return _UNTOLD
    # A stream, what a block adds to it, and positions in two forms.
    streams = 4 * tokens * model.anatomy.d_model * model.dtype.itemsize
    logits = read * model.vocabulary * model.dtype.itemsize
    if model.device.type != "cpu":
        return max(1, int(2 * _SHARE * free / (streams + logits)))
    return max(1, min(int(2 * _SHARE * free / streams), _WAITING_LOGITS // max(1, logits)))


def tokens_at_once(model: Model) -> int:
    """The tokens that a pass may read at once into a cache, by the memory that is free; at most `MOST_TOKENS`."""
    free, most = free_memory(model), _most_tokens(model)
    return most if free is None else max(1, min(most, int(_SHARE * free / _token_bytes(model))))


def rows_at_once(model: Model, tokens: int, token_bytes: int | None = None) -> int | None:
    """The rows that may be decoded at once, by the memory that is free; None where that cannot be told.

    Args:
        tokens: of the longest row in the end.
        token_bytes: what a cache keeps of a token; None is as much as any model's does.
    """
    free = free_memory(model)
    if token_bytes is None:
        token_bytes = 2 * _CACHED * model.anatomy.n_layers * model.anatomy.d_model * model.dtype.itemsize
    return None if free is None else max(1, int(_SHARE_OF_CACHE * free / (tokens * token_bytes + _logits_bytes(model))))


def _most_tokens(model: Model) -> int:
    return MOST_TOKENS["cpu" if model.device.type == "cpu" else "other"]


def _token_bytes(model: Model) -> int:
    """What a pass holds of a token."""
    return model.anatomy.d_model * _WIDTHS * model.dtype.itemsize


def _logits_bytes(model: Model) -> int:
    """What a pass holds of a position whose logits are read."""
    return model.vocabulary * (model.dtype.itemsize + 4)


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        # What torch holds on to and does not use is free for us alone.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type != "cpu":
        return None
    told = [each for each in (_available(), _left_in_group()) if each is not None]
    # Each of several processes on this machine takes its part.
    return min(told) // memory_share() if told else None


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
