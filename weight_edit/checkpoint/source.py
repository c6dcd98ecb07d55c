"""A checkpoint folder as it is on disk: its config, the weights that transformers loads, and all else."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import (
    Stamp,
    check_relative,
    chunks,
    list_files,
    locate,
    open_regular,
    read_exactly,
    read_json,
    shown,
)
from weight_edit.checkpoint.header import Header, TensorInfo, read_header
from weight_edit.checkpoint.manifest import MANIFEST
from weight_edit.checkpoint.numbers import STORED, decode
from weight_edit.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["CONFIG", "INDEX", "SINGLE", "Checkpoint", "TensorInfo"]

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npz")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder, opened and checked. Only headers and JSON are read until `read`, `raw` or `open_file`.

    Attributes:
        path: the folder, resolved.
        config: `config.json`, parsed.
        tensors: name -> where it is; ordered by shard, then by place in the file.
        shards: the weight files that transformers loads, sorted.
        index_file: the index that lists the shards; None for a single file.
        other_files: every other file but `config.json` and the manifest; relative, sorted.
        skipped: folders of tools (`.git`, `.cache`, ...) that are not part of the model.
        headers: shard -> its parsed header.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    shards: tuple[str, ...]
    index_file: str | None
    other_files: tuple[str, ...]
    skipped: tuple[str, ...]
    headers: Mapping[str, Header]
    _stamps: Mapping[str, Stamp] = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Open the checkpoint in the folder `path`.

        The weights are those that transformers loads: the file that `transformers_weights` of the config
        names, else `model.safetensors`, else the shards of `model.safetensors.index.json`.

        Raises:
            UsageError: no folder, config or weights; a malformed config, index or header; an index and shards
                that disagree; file names or links that leave the folder.
            UnsupportedError: only pickled weights (`pytorch_model.bin`).
        """
        folder = Path(path)
        try:
            what = None if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
            root = folder.resolve()
        except OSError as error:
            what = f"cannot be opened ({os.strerror(error.errno or 0)})"
        if what is not None:
            raise UsageError(f"{shown(str(folder))} {what}; give the folder with config.json and the weights")
        files, skipped = list_files(root)
        stamps: dict[str, Stamp] = {}
        if CONFIG not in files:
            raise UsageError(f"{shown(str(root))} has no config.json; give the folder of a whole model")
        config = read_json(_content(root, CONFIG, stamps), CONFIG, unique_keys=False)
        if not isinstance(config, dict):
            raise UsageError(f"{shown(str(root / CONFIG))}: must be a JSON object")
        weights = _weights_of(root, files, config)
        weight_map: dict[str, str] | None = None
        index_file = weights if weights.endswith(".json") else None
        if index_file is None:
            shards: tuple[str, ...] = (weights,)
        else:
            weight_map = _read_index(_content(root, index_file, stamps), index_file)
            shards = tuple(sorted(set(weight_map.values())))
        headers: dict[str, Header] = {}
        for shard in shards:
            if shard not in files:
                raise UsageError(f"{shown(index_file or CONFIG)}: names {shown(shard)!r}, which is not in the folder")
            with open_regular(locate(root, shard)) as file:
                stamps[shard] = Stamp.of(file)
                headers[shard] = read_header(file, stamps[shard].size, shard)
        if weight_map is not None and index_file is not None:
            _check_index(weight_map, headers, index_file)
        tensors = {info.name: info for shard in shards for info in headers[shard].tensors}
        if not tensors:
            raise UsageError(f"{shown(str(root / weights))}: has no tensors; fetch the file again")
        own = {CONFIG, MANIFEST, index_file, *shards}
        return cls(
            path=root,
            config=MappingProxyType(config),
            tensors=MappingProxyType(tensors),
            shards=shards,
            index_file=index_file,
            other_files=tuple(name for name in files if name not in own),
            skipped=skipped,
            headers=MappingProxyType(headers),
            _stamps=MappingProxyType(stamps),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a copy has: shards, index, config and the others; not the manifest. Sorted."""
        index = () if self.index_file is None else (self.index_file,)
        return tuple(sorted({*self.shards, *index, CONFIG, *self.other_files}))

    @property
    def other_weights(self) -> tuple[str, ...]:
        """Files that look like weights but that transformers does not load, so that no edit reaches them."""
        return tuple(name for name in self.other_files if name.endswith(_WEIGHTS))

    @property
    def size(self) -> int:
        """Bytes of all `files` together."""
        return sum(self.file_size(name) for name in self.files)

    def file_size(self, name: str) -> int:
        """Bytes of one file."""
        return locate(self.path, name).stat().st_size

    def stamp(self, name: str) -> Stamp:
        """What identifies one file's content: as it was at `open` for all that was read then, else as it is now."""
        known = self._stamps.get(name)
        if known is not None:
            return known
        with self.open_file(name) as file:
            return Stamp.of(file)

    def open_file(self, name: str) -> BinaryIO:
        """Open one of `files` for unbuffered reading.

        Raises:
            UsageError: missing, not a regular file, a link out of the folder, or changed since `open`.
        """
        file = open_regular(locate(self.path, name))
        known = self._stamps.get(name)
        if known is not None and Stamp.of(file) != known:
            file.close()
            raise UsageError(f"{shown(str(self.path / name))} changed while it was in use; start again")
        return file

    def read_file(self, name: str) -> bytearray:
        """The whole content of one (small) file."""
        with self.open_file(name) as file:
            return read_exactly(file, Stamp.of(file).size, name)

    def header_bytes(self, shard: str) -> bytearray:
        """A shard's header as it is on disk, with its eight bytes of length."""
        with self.open_file(shard) as file:
            return read_exactly(file, self.headers[shard].data_start, shard)

    def info(self, name: str) -> TensorInfo:
        """Where a tensor is.

        Raises:
            UsageError: no such tensor.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise UsageError(f"{shown(str(self.path))}: no tensor is named {shown(name)!r}") from None

    def read(self, name: str) -> "torch.Tensor":
        """A tensor in its own dtype and shape, in memory of its own; the one method that needs torch.

        Raises:
            UsageError: no such tensor, or the file was cut or changed.
            UnsupportedError: a dtype that torch has no plain tensor for.
        """
        from weight_edit.checkpoint.tensors import to_tensor

        info = self.info(name)
        with self.open_file(info.shard) as file:
            file.seek(info.begin)
            return to_tensor(read_exactly(file, info.size, info.shard), info)

    def values(self, name: str) -> NDArray[np.float64]:
        """A (small) tensor's numbers in float64, in its shape; needs no torch.

        Raises:
            UsageError: no such tensor, or the file was cut or changed.
            UnsupportedError: a dtype that is no plain floating format.
        """
        info = self.info(name)
        if info.dtype not in STORED:
            raise UnsupportedError(f"tensor {shown(name)!r} is stored as {info.dtype}, none of {', '.join(STORED)}")
        with self.open_file(info.shard) as file:
            file.seek(info.begin)
            raw = np.frombuffer(read_exactly(file, info.size, info.shard), np.uint8)
        return decode(raw, info.dtype).reshape(info.shape)

    def raw(self, name: str) -> Iterator[bytearray]:
        """A tensor's bytes, in pieces of `files.CHUNK` bytes (the last one may be shorter)."""
        info = self.info(name)
        with self.open_file(info.shard) as file:
            file.seek(info.begin)
            yield from chunks(file, info.size, info.shard)


def _content(root: Path, name: str, stamps: dict[str, Stamp]) -> bytearray:
    with open_regular(locate(root, name)) as file:
        stamps[name] = Stamp.of(file)
        if stamps[name].size > 100_000_000:
            raise UsageError(f"{shown(str(root / name))} is too long for a JSON file of a model")
        return read_exactly(file, stamps[name].size, name)


def _weights_of(root: Path, files: tuple[str, ...], config: Mapping[str, Any]) -> str:
    """The file that transformers starts from (`_get_resolved_checkpoint_files` in its modeling_utils)."""
    named = config.get("transformers_weights")
    if named is not None:
        check_relative(named, f"{CONFIG}: transformers_weights")
        if not named.endswith((".safetensors", ".safetensors.index.json")):
            raise UsageError(f"{CONFIG}: transformers_weights is {shown(named)!r}, which is no safetensors file")
        if named not in files:
            raise UsageError(f"{CONFIG}: transformers_weights names {shown(named)!r}, which is not in the folder")
        return str(named)
    for name in (SINGLE, INDEX):
        if name in files:
            return name
    if any(name in files for name in _PICKLES):
        raise UnsupportedError(
            f"{shown(str(root))} has only pickled weights (pytorch_model.bin), which are never loaded;"
            " convert them once, where you trust them: python -c 'import sys; from transformers import"
            " AutoModelForCausalLM as M; M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])'"
            " OLD_FOLDER NEW_FOLDER, and copy the tokenizer's files"
        )
    raise UsageError(f"{shown(str(root))} has neither {SINGLE} nor {INDEX}; fetch the model's weights")


def _read_index(raw: bytearray, name: str) -> dict[str, str]:
    index = read_json(raw, name)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise UsageError(f"{shown(name)}: must be a JSON object with a `weight_map`")
    if not isinstance(index.get("metadata", {}), dict):
        raise UsageError(f"{shown(name)}: `metadata` must be an object")
    weight_map = index["weight_map"]
    if not weight_map:
        raise UsageError(f"{shown(name)}: `weight_map` is empty")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise UsageError(f"{shown(name)}: tensor {shown(tensor)!r} must map to a file name")
    for shard in set(weight_map.values()):
        check_relative(shard, name)
        if not shard.endswith(".safetensors"):
            raise UsageError(
                f"{shown(name)}: the shard {shown(shard)!r} is no .safetensors file; others are not loaded"
            )
    return dict(weight_map)


def _check_index(weight_map: Mapping[str, str], headers: Mapping[str, Header], index_file: str) -> None:
    present = {shard: {info.name for info in header.tensors} for shard, header in headers.items()}
    for tensor, shard in weight_map.items():
        if tensor not in present[shard]:
            raise UsageError(f"{shown(index_file)}: tensor {shown(tensor)!r} is not in {shown(shard)}")
    for shard, names in present.items():
        for tensor in sorted(names):
            if weight_map.get(tensor) != shard:
                where = weight_map.get(tensor)
                said = "not in the index" if where is None else f"in {shown(where)} by the index"
                raise UsageError(f"{shown(shard)}: tensor {shown(tensor)!r} is {said} ({shown(index_file)})")
