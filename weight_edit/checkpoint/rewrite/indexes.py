"""The two JSON files of a checkpoint that an edit may change: index and config."""

import json
from collections.abc import Mapping
from typing import Any

from weight_edit.checkpoint.files import read_json
from weight_edit.checkpoint.source.checkpoint import CONFIG, Checkpoint
from weight_edit.errors import UsageError


def index_with(source: Checkpoint, weight_map: Mapping[str, str], more_bytes: int, more_numbers: int) -> bytes:
    """The index of a changed checkpoint.

    Args:
        weight_map: tensor -> shard, all of them, in order.
        more_bytes, more_numbers: what the tensors have more than the source's, for the totals in its metadata.
    """
    if source.index_file is None:
        total = sum(info.size for info in source.tensors.values())
        index: dict[str, Any] = {"metadata": {"total_size": total + more_bytes}}
    else:
        index = read_json(source.read_file(source.index_file), source.index_file)
        # transformers does not load an index without metadata.
        metadata = index.setdefault("metadata", {})
        for key, more in (("total_size", more_bytes), ("total_parameters", more_numbers)):
            # Some count otherwise than the bytes on disk; what they count grows by as much.
            if type(metadata.get(key)) is int:
                metadata[key] += more
    index["weight_map"] = dict(weight_map)
    return (json.dumps(index, indent=2) + "\n").encode("utf-8")


def config_with(source: Checkpoint, changes: Mapping[str, Any]) -> bytes | None:
    """config.json with some top-level keys set; None if nothing changes.

    Args:
        changes: key -> value; a value of None takes the key out. Order and all other keys stay.

    Raises:
        UsageError: text in it that cannot be written.
    """
    raw = source.read_file(CONFIG)
    config = read_json(raw, CONFIG, constants=True)
    before = dict(config)
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        elif key not in config or not same_json(config[key], value):
            config[key] = value
    if same_json(before, config):
        return None
    # Text in other scripts stays readable where the source has it so.
    try:
        text = json.dumps(config, indent=2, ensure_ascii=raw.isascii())
        return (text + ("\n" if raw.endswith(b"\n") else "")).encode("utf-8")
    except UnicodeEncodeError:
        # An escape can spell half of a surrogate pair, which no UTF-8 text holds.
        raise UsageError(f"{CONFIG}: has text that is not valid Unicode; take it out") from None


def same_json(left: object, right: object) -> bool:
    """Whether two values are the same JSON: compared as text, since in Python 1 == 1.0 == True."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
