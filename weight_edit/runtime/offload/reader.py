"""Tensors of safetensors files, read where they lie into memory of one's own."""

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from weight_edit.checkpoint.files import Stamp, open_regular, printable
from weight_edit.checkpoint.tensor.header import TensorInfo, read_header
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.runtime.offload.buffers import empty

Runs = Sequence[tuple[int, int]]
"""Rows along the first axis: the first one of each run, and the one behind its last."""

_AT_ONCE = 1 << 30
"""Bytes asked for in one call; the kernel gives at most 2 GiB."""


class Shards:
    """The tensors of a checkpoint's safetensors files, by name.

    Attributes:
        bytes_read: of tensors, so far.
    """

    def __init__(self, files: Iterable[Path | str]) -> None:
        """Open the files and read their headers.

        Raises:
            UsageError: as `read_header`, or two files have a tensor of one name.
            UnsupportedError: a dtype that torch has no plain tensor for.
        """
        self.bytes_read = 0
        self._lock = threading.Lock()
        self._at: dict[str, tuple[BinaryIO, TensorInfo]] = {}
        opened: list[BinaryIO] = []
        weakref.finalize(self, _close, opened)
        for path in files:
            file = open_regular(Path(path).resolve())
            opened.append(file)
            for info in read_header(file, Stamp.of(file).size, str(path)).tensors:
                if info.name in self._at:
                    raise UsageError(
                        f"{printable(str(path))}: an earlier file has a tensor {printable(info.name)!r} too"
                    )
                if info.dtype not in TORCH_DTYPES:
                    raise UnsupportedError(
                        f"{printable(str(path))}: tensor {printable(info.name)!r} is {info.dtype}, which packs elements"
                    )
                self._at[info.name] = file, info

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors' names."""
        return tuple(self._at)

    def size(self, name: str) -> int:
        """The bytes of a tensor."""
        return self._at[name][1].size

    def like(self, name: str) -> Tensor:
        """A tensor without values, of the shape and dtype stored."""
        info = self._at[name][1]
        return torch.empty(info.shape, dtype=TORCH_DTYPES[info.dtype], device="meta")

    def read(self, name: str, runs: Runs | None = None) -> Tensor:
        """A tensor as it is stored, or some rows of it, one run behind the other.

        Raises:
            UsageError: the file was cut since it was opened.
        """
        file, info = self._at[name]
        row = info.size // max(1, info.shape[0] if info.shape else 1)
        count = sum(end - begin for begin, end in runs or ())
        shape = info.shape if runs is None else (count, *info.shape[1:])
        pieces = [(info.begin, info.size)]
        if runs is not None:
            pieces = [(info.begin + begin * row, (end - begin) * row) for begin, end in runs]
        out = empty(shape, TORCH_DTYPES[info.dtype], behind=pieces[0][0] if pieces else 0)
        view, done = memoryview(out.reshape(-1).view(torch.uint8).numpy().data), 0
        for place, count in pieces:
            self._fill(file, place, view[done : done + count], info)
            done += count
        with self._lock:
            self.bytes_read += done
        return out

    def announce(self, names: Iterable[str]) -> None:
        """Let the system read tensors ahead, into its own cache."""
        if hasattr(os, "posix_fadvise"):
            for file, info in (self._at[name] for name in names):
                os.posix_fadvise(file.fileno(), info.begin, info.size, os.POSIX_FADV_WILLNEED)

    def _fill(self, file: BinaryIO, place: int, view: memoryview, info: TensorInfo) -> None:
        done = 0
        while done < len(view):
            got = os.preadv(file.fileno(), [view[done : done + _AT_ONCE]], place + done)
            if not got:
                raise UsageError(f"{printable(info.shard)} ends early; it was cut since it was opened, fetch it again")
            done += got


def _close(files: list[BinaryIO]) -> None:
    for file in files:
        file.close()
