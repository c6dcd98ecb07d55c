"""Tied embeddings: whether config and checkpoint together make one tensor on loading.

A config ties them, by what it says or by its class's default; transformers follows it where the checkpoint has one of
the two tensors, or both with the same numbers. Where it has both with different numbers, it keeps both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.parts import Anatomy
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError

KEY = "tie_word_embeddings"


def as_loaded(anatomy: Anatomy, checkpoint: Checkpoint, disk: DiskNames, *, whole: bool = True) -> Anatomy:
    """The anatomy with `tied` as transformers sets it when it loads this checkpoint.

    Args:
        whole: False compares no more than the beginnings of the two tensors, where each read is a download.

    Raises:
        UnsupportedError: both are stored, in different dtypes: what they become depends on the reader.
    """
    if not anatomy.tied or anatomy.unembedding_weight not in disk:
        return anatomy
    first, second = disk.only(anatomy.embedding_weight), disk.only(anatomy.unembedding_weight)
    a, b = checkpoint.info(first), checkpoint.info(second)
    if a.dtype != b.dtype and checkpoint.gguf is not None:
        # Every reader of such a file has both.
        return replace(anatomy, tied=False)
    if a.dtype != b.dtype:
        raise UnsupportedError(
            f"the config ties '{second}' to '{first}', and the checkpoint has the one in {b.dtype} and the other in "
            f"{a.dtype}, so that it depends on the reader whether they are tied; set {KEY} to false in config.json, or "
            f"leave '{second}' out"
        )
    pieces = zip(checkpoint.raw(first), checkpoint.raw(second), strict=False)
    alike = a.shape == b.shape
    return replace(anatomy, tied=alike and all(piece == other for piece, other in islice(pieces, None if whole else 1)))


def untied(config: Mapping[str, Any], levels: Sequence[Sequence[str]]) -> dict[tuple[str, ...], bool]:
    """Config changes that untie the embeddings for every reader: path of keys -> False.

    Args:
        config: `config.json`, parsed.
        levels: paths of the configs that a reader may look at, see `Anatomy.text_levels`.
    """
    return {(*level, KEY): False for level in levels if _holds(config, level)}


def _holds(config: Any, path: Sequence[str]) -> bool:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return isinstance(config, Mapping)


def with_values(config: Mapping[str, Any], changes: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The changed top-level entries of a config, whole, after values are set at paths of keys."""
    found: dict[str, Any] = {}
    for (key, *rest), value in changes.items():
        if not rest:
            found[key] = value
            continue
        inner = found.get(key, config.get(key))
        inner = inner if isinstance(inner, Mapping) else {}
        found[key] = {**inner, **with_values(inner, {tuple(rest): value})}
    return found
