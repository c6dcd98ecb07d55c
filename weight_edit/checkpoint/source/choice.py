"""The choice of a model's weight files as transformers makes it, by names and JSON alone."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.checkpoint.files import SKIPPED, check_relative, printable, read_json
from weight_edit.checkpoint.source.refused import without_weights
from weight_edit.errors import UsageError

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_WEIGHTS = (
    *(
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".pkl",
        ".gguf",
        ".ggml",
        ".onnx",
        ".onnx_data",
        ".h5",
        ".msgpack",
    ),
    *(".npz", ".ot", ".tflite", ".mlmodel", ".nemo", ".distcp"),
)
_STEMS = (".safetensors.", ".bin.")

# Second copies of the weights in other layouts, with their own small files.
_COPIES = frozenset({"original", "metal", "onnx", "openvino", "coreml", "gguf"})
_CONSOLIDATED = "consolidated"
# What a model's card shows or brings along, and no loader reads.
_NOT_THE_MODEL = (
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp3", ".mp4", ".wav", ".pdf", ".ipynb"),
    *(".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".parquet", ".arrow", ".npy"),
)


@dataclass(frozen=True)
class Chosen:
    """The weight files that transformers loads.

    Attributes:
        shards: the weight files, sorted; a single one when there is no index.
        index_file: the index that lists the shards; None for a single file.
        weight_map: the index: tensor name -> shard; None for a single file.
    """

    shards: tuple[str, ...]
    index_file: str | None = None
    weight_map: Mapping[str, str] | None = None


def choose(
    config: Mapping[str, Any], files: Collection[str], read: Callable[[str], bytes | bytearray], where: str
) -> Chosen:
    """The weight files that transformers loads by default.

    The rule is that of `_get_resolved_checkpoint_files` in its modeling_utils.

    That is the file that `transformers_weights` of the config names, else `model.safetensors`, else the shards of
    `model.safetensors.index.json`. Files of a `variant` (`model.fp16.safetensors`) are not loaded by default.

    Args:
        config: `config.json`, parsed.
        files: all files of the folder or repository, relative.
        read: content of a small file by its name; called for the index.
        where: the folder or repository, for messages.

    Raises:
        UsageError: no weights, a malformed index or one that names a missing file, names that leave the folder.
        UnsupportedError: weights only in formats that are not read.
    """
    start = _start(config, files, where)
    if not start.endswith(".json"):
        return Chosen((start,))
    weight_map = _read_index(read(start), start)
    shards = tuple(sorted(set(weight_map.values())))
    for shard in shards:
        if shard not in files:
            raise UsageError(
                f"{printable(start)}: names {printable(shard)!r}, which is not in the folder {printable(where)}"
            )
    return Chosen(shards, start, weight_map)


def is_weights(name: str) -> bool:
    """Whether a file is named like weights or an index of weights."""
    is_index = name.endswith(".json") and ".index." in name and any(stem in name for stem in _STEMS)
    return is_index or name.endswith(_WEIGHTS)


def small_files(files: Iterable[str], chosen: Chosen | None) -> tuple[str, ...]:
    """The model's files other than shards, without second copies of weights or pictures.

    Args:
        files: all files of the repository.
        chosen: the weights, whose index is one of the small files; None leaves it out.
    """
    index = None if chosen is None else chosen.index_file
    return tuple(sorted(name for name in files if name == index or _is_small(name)))


def _is_small(name: str) -> bool:
    folder, _, rest = name.partition("/")
    if (rest and folder in _COPIES) or SKIPPED.intersection(name.split("/")):
        return False
    return not (is_weights(name) or name.startswith(_CONSOLIDATED) or name.lower().endswith(_NOT_THE_MODEL))


def _start(config: Mapping[str, Any], files: Collection[str], where: str) -> str:
    named = config.get("transformers_weights")
    if named is None:
        for name in (SINGLE, INDEX):
            if name in files:
                return name
        raise without_weights(files, where)
    check_relative(named, f"{CONFIG}: transformers_weights")
    if not named.endswith((".safetensors", ".safetensors.index.json")):
        raise UsageError(f"{CONFIG}: transformers_weights is {printable(named)!r}, which is no safetensors file")
    if named not in files:
        raise UsageError(f"{CONFIG}: transformers_weights names {printable(named)!r}, which is not in the folder")
    return str(named)


def _read_index(raw: bytes | bytearray, name: str) -> dict[str, str]:
    index = read_json(raw, name)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise UsageError(f"{printable(name)}: must be a JSON object with a `weight_map`")
    if not isinstance(index.get("metadata", {}), dict):
        raise UsageError(f"{printable(name)}: `metadata` must be an object")
    weight_map = index["weight_map"]
    if not weight_map:
        raise UsageError(f"{printable(name)}: `weight_map` is empty")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise UsageError(f"{printable(name)}: tensor {printable(tensor)!r} must map to a file name")
    for shard in set(weight_map.values()):
        check_relative(shard, name)
        if not shard.endswith(".safetensors"):
            raise UsageError(
                f"{printable(name)}: the shard {printable(shard)!r} is no .safetensors file; others are not loaded"
            )
    return dict(weight_map)
