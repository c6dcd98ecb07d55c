"""A checkpoint on disk: its config, the weights that transformers loads, other files; or a GGUF model."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import (
    Stamp,
    chunks,
    list_files,
    locate,
    open_regular,
    printable,
    read_exactly,
    read_json,
)
from weight_edit.checkpoint.gguf.header import GgufHeader, read_gguf
from weight_edit.checkpoint.gguf.parts import GgufFiles, gguf_files, merged
from weight_edit.checkpoint.manifest import MANIFEST
from weight_edit.checkpoint.quantized.modelopt import OWN_CONFIG, declared
from weight_edit.checkpoint.source.choice import CONFIG, INDEX, SINGLE, choose, is_weights
from weight_edit.checkpoint.source.refused import quantization_of, without_config
from weight_edit.checkpoint.source.shards import RangedFile, ShardProvider
from weight_edit.checkpoint.tensor.header import Header, TensorInfo, read_header
from weight_edit.checkpoint.tensor.numbers import STORED, decode
from weight_edit.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

_SMALL = 1 << 16
"""The most bytes of a tensor of a few numbers."""

__all__ = ["CONFIG", "INDEX", "SINGLE", "Checkpoint", "TensorInfo"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model folder or GGUF model, opened and checked; tensors are read only when asked for.

    Attributes:
        path: the folder, resolved; of a GGUF file the folder that it is in.
        config: `config.json`, parsed; with what ModelOpt says in a file of its own as `quantization_config`. Empty for
            a GGUF model.
        tensors: name -> where it is; ordered by shard, then by place in the file.
        shards: the weight files that transformers loads, sorted; or the files of the GGUF model.
        index_file: the index that lists the shards; None for a single file, and for GGUF.
        other_files: every other file but `config.json` and the manifest; relative, sorted. A GGUF file
            that was given by itself has none, whatever lies beside it.
        skipped: folders of tools (`.git`, `.cache`, ...) that are not part of the model.
        headers: shard -> its parsed header.
        gguf: what a GGUF model says of itself, all parts together; None for a model folder.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    shards: tuple[str, ...]
    index_file: str | None
    other_files: tuple[str, ...]
    skipped: tuple[str, ...]
    headers: Mapping[str, Header]
    gguf: GgufHeader | None = None
    _stamps: dict[str, Stamp] = field(repr=False, compare=False)
    _provider: ShardProvider | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, shards: ShardProvider | None = None) -> "Checkpoint":
        """Open the checkpoint in the folder `path`, or a GGUF file.

        The weights are those that transformers loads, see `source.choice.choose`; or, in a folder without config.json,
        those of the one GGUF model in it.

        Args:
            path: the folder; or a GGUF file, of a model in parts any of them.
            shards: brings the shards that are not in the folder yet; everything is checked by their headers, and
                what is read of them before `fetch` is read by ranges.

        Raises:
            UsageError: no folder, config or weights; a malformed config, index or header; an index and shards
                that disagree; file names or links that leave the folder; several GGUF models.
            UnsupportedError: weights only in formats that are not read (`pytorch_model.bin`, an adapter).
        """
        folder = Path(path)
        try:
            found = gguf_files(folder)
            if found is not None:
                return cls._of_gguf(found)
            what = (
                None if folder.is_dir() else "is not a folder or a GGUF file" if folder.exists() else "does not exist"
            )
            root = folder.resolve()
        except OSError as error:
            what = f"cannot be opened ({os.strerror(error.errno or 0)})"
        if what is not None:
            raise UsageError(
                f"{printable(str(folder))} {what}; give the folder with config.json and the weights, or a GGUF file"
            )
        files, skipped = list_files(root)
        stamps: dict[str, Stamp] = {}
        if CONFIG not in files:
            raise without_config(files, str(root))
        config = read_json(_content(root, CONFIG, stamps), CONFIG, unique_keys=False, constants=True)
        if not isinstance(config, dict):
            raise UsageError(f"{printable(str(root / CONFIG))}: must be a JSON object")
        if OWN_CONFIG in files and quantization_of(config) is None:
            said = declared(read_json(_content(root, OWN_CONFIG, stamps), OWN_CONFIG, unique_keys=False))
            config["quantization_config"] = said
        known = {*files, *(shards.sizes if shards is not None else ())}
        chosen = choose(config, known, lambda name: _content(root, name, stamps), str(root))
        headers: dict[str, Header] = {}
        for shard in chosen.shards:
            if shards is not None and shard not in files:
                headers[shard] = read_header(cast(BinaryIO, RangedFile(shards, shard)), shards.sizes[shard], shard)
                continue
            with open_regular(locate(root, shard)) as file:
                stamps[shard] = Stamp.of(file)
                headers[shard] = read_header(file, stamps[shard].size, shard)
        if chosen.weight_map is not None and chosen.index_file is not None:
            _check_index(chosen.weight_map, headers, chosen.index_file)
        tensors = {info.name: info for shard in chosen.shards for info in headers[shard].tensors}
        if not tensors:
            raise UsageError(f"{printable(str(root / chosen.shards[0]))}: has no tensors; fetch the file again")
        own = {CONFIG, MANIFEST, chosen.index_file, *chosen.shards}
        for name in files:
            # So that a change of any file that is copied is noticed, whenever it is.
            if name not in stamps and name != MANIFEST:
                with open_regular(locate(root, name)) as file:
                    stamps[name] = Stamp.of(file)
        return cls(
            path=root,
            config=MappingProxyType(config),
            tensors=MappingProxyType(tensors),
            shards=chosen.shards,
            index_file=chosen.index_file,
            other_files=tuple(name for name in files if name not in own),
            skipped=skipped,
            headers=MappingProxyType(headers),
            _stamps=stamps,
            _provider=shards,
        )

    @classmethod
    def _of_gguf(cls, found: GgufFiles) -> "Checkpoint":
        files, skipped = ((), ()) if found.alone else list_files(found.root)
        stamps: dict[str, Stamp] = {}
        headers: dict[str, GgufHeader] = {}
        for name in dict.fromkeys((*found.parts, *files)):
            if name == MANIFEST:
                continue
            with open_regular(locate(found.root, name)) as file:
                stamps[name] = Stamp.of(file)
                if name in found.parts:
                    headers[name] = read_gguf(file, stamps[name].size, name)
        gguf = merged(headers)
        return cls(
            path=found.root,
            config=MappingProxyType({}),
            tensors=MappingProxyType({info.name: info for info in gguf.tensors}),
            shards=found.parts,
            index_file=None,
            other_files=tuple(name for name in files if name not in (MANIFEST, *found.parts)),
            skipped=skipped,
            headers=MappingProxyType(
                {name: Header(each.tensors, None, each.data_start) for name, each in headers.items()}
            ),
            gguf=gguf,
            _stamps=stamps,
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a copy of the checkpoint has, sorted; the manifest is not one."""
        index = () if self.index_file is None else (self.index_file,)
        config = () if self.gguf is not None else (CONFIG,)
        return tuple(sorted({*self.shards, *index, *config, *self.other_files}))

    @property
    def quantization(self) -> Mapping[str, Any]:
        """What config.json says of the storage of quantised weights; empty where there are none.

        Raises:
            UsageError: it is no object.
        """
        return quantization_of(self.config) or {}

    @property
    def other_weights(self) -> tuple[str, ...]:
        """Weight files that transformers does not load, so that no edit reaches them."""
        return tuple(name for name in self.other_files if is_weights(name))

    @property
    def size(self) -> int:
        """The size of all `files` in bytes."""
        return sum(self.file_size(name) for name in self.files)

    def file_size(self, name: str) -> int:
        """The size of one file in bytes."""
        absent = self._absent(name)
        return absent.sizes[name] if absent is not None else locate(self.path, name).stat().st_size

    def identity(self, name: str) -> str:
        """A text that identifies a file's content without reading all of a large file."""
        if self._provider is None:
            return str(self._stamps[name])
        if name in self._provider.sizes:
            return f"{self._provider.identity(name)} {self._provider.sizes[name]}"
        # What was downloaded for this run has times and places of its own.
        return hashlib.sha256(self.read_file(name)).hexdigest()

    def open_file(self, name: str) -> BinaryIO:
        """Open one of `files` for unbuffered reading.

        Raises:
            UsageError: missing, not a regular file, a link out of the folder, or changed since `open`.
        """
        file = open_regular(locate(self.path, name))
        known = self._stamps.get(name)
        if known is not None and Stamp.of(file) != known:
            file.close()
            raise UsageError(f"{printable(str(self.path / name))} changed while it was in use; start again")
        return file

    @property
    def comes_and_goes(self) -> bool:
        """Whether shards are downloaded one at a time and deleted again."""
        return self._provider is not None

    def fetch(self, shard: str) -> Path:
        """The real path of a shard, which is downloaded first if it is missing.

        Raises:
            UsageError: it cannot be brought, or is not the one whose header was read.
        """
        absent = self._absent(shard)
        if absent is not None:
            absent.fetch(shard)
            with open_regular(locate(self.path, shard)) as file:
                stamp = Stamp.of(file)
                if read_header(file, stamp.size, shard) != self.headers[shard]:
                    raise UsageError(f"{printable(shard)} is not the file whose header was read before; start again")
            self._stamps[shard] = stamp
        return locate(self.path, shard)

    def drop(self, shard: str) -> None:
        """Delete a shard that was downloaded by `fetch`; the user's own files stay."""
        if self._provider is not None and shard in self._provider.sizes:
            self._provider.drop(shard)
            self._stamps.pop(shard, None)

    def read_file(self, name: str) -> bytearray:
        """The content of a small file."""
        with self.open_file(name) as file:
            return read_exactly(file, Stamp.of(file).size, name)

    def header_bytes(self, shard: str) -> bytearray:
        """A shard's header in bytes, its eight bytes of length included."""
        with self._open_shard(shard) as file:
            return read_exactly(file, self.headers[shard].data_start, shard)

    def info(self, name: str) -> TensorInfo:
        """The header entry of a tensor.

        Raises:
            UsageError: no such tensor.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise UsageError(f"{printable(str(self.path))}: no tensor is named {printable(name)!r}") from None

    def read(self, name: str) -> "torch.Tensor":
        """A tensor in its own dtype and shape, as a copy; the one method that needs torch.

        Raises:
            UsageError: no such tensor, or the file was cut or changed.
            UnsupportedError: a dtype that torch has no plain tensor for.
        """
        from weight_edit.checkpoint.tensor.torch_dtypes import to_tensor

        info = self.info(name)
        with self._open_shard(info.shard) as file:
            file.seek(info.begin)
            return to_tensor(read_exactly(file, info.size, info.shard), info)

    def values(self, name: str) -> NDArray[np.float64]:
        """A small tensor's numbers in float64, in its shape; needs no torch.

        Raises:
            UsageError: no such tensor, or the file was cut or changed.
            UnsupportedError: a dtype that is no plain floating format.
        """
        info = self.info(name)
        if info.dtype not in STORED:
            raise UnsupportedError(f"tensor {printable(name)!r} is stored as {info.dtype}, none of {', '.join(STORED)}")
        with self._open_shard(info.shard) as file:
            file.seek(info.begin)
            raw = np.frombuffer(read_exactly(file, info.size, info.shard), np.uint8)
        return decode(raw, info.dtype).reshape(info.shape)

    def content(self, name: str) -> bytes:
        """The bytes of a tensor of a few numbers, such as a shape.

        Raises:
            UsageError: no such tensor, one that is larger than that, or the file was cut or changed.
        """
        info = self.info(name)
        if info.size > _SMALL:
            raise UsageError(
                f"tensor {printable(name)!r} has {info.size} bytes, where a few numbers are expected; "
                "fetch the checkpoint again"
            )
        return b"".join(self.raw(name))

    def raw(self, name: str) -> Iterator[bytearray]:
        """A tensor's bytes, in pieces of `files.CHUNK` bytes (the last one may be shorter)."""
        info = self.info(name)
        with self._open_shard(info.shard) as file:
            file.seek(info.begin)
            yield from chunks(file, info.size, info.shard)

    def _absent(self, name: str) -> ShardProvider | None:
        """The provider of a file, if that is a missing shard; else None."""
        able = self._provider is not None and name in self._provider.sizes
        return self._provider if able and not os.path.lexists(self.path / name) else None

    def _open_shard(self, shard: str) -> BinaryIO:
        absent = self._absent(shard)
        return self.open_file(shard) if absent is None else cast(BinaryIO, RangedFile(absent, shard))


def _content(root: Path, name: str, stamps: dict[str, Stamp]) -> bytearray:
    with open_regular(locate(root, name)) as file:
        stamps[name] = Stamp.of(file)
        if stamps[name].size > 100_000_000:
            raise UsageError(f"{printable(str(root / name))} is too long for a JSON file of a model")
        return read_exactly(file, stamps[name].size, name)


def _check_index(weight_map: Mapping[str, str], headers: Mapping[str, Header], index_file: str) -> None:
    present = {shard: {info.name for info in header.tensors} for shard, header in headers.items()}
    for tensor, shard in weight_map.items():
        if tensor not in present[shard]:
            raise UsageError(f"{printable(index_file)}: tensor {printable(tensor)!r} is not in {printable(shard)}")
    for shard, names in present.items():
        for tensor in sorted(names):
            if weight_map.get(tensor) != shard:
                where = weight_map.get(tensor)
                said = "not in the index" if where is None else f"in {printable(where)} by the index"
                raise UsageError(
                    f"{printable(shard)}: tensor {printable(tensor)!r} is {said} ({printable(index_file)})"
                )
