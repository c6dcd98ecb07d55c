"""Reads a checkpoint's bytes by position, with every file open once."""

import os
from typing import BinaryIO

from weight_edit.checkpoint.files import Stamp, shown
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.checkpoint.storage import Bytes
from weight_edit.errors import UsageError


class Reader:
    """Positional reads from one checkpoint, for one thread.

    Attributes:
        bytes_read: how many so far.
    """

    def __init__(self, source: Checkpoint) -> None:
        self._source = source
        self._files: dict[str, BinaryIO] = {}
        self.bytes_read = 0

    def tensor(self, name: str, offset: int, into: Bytes) -> None:
        """Fill `into` with a tensor's bytes from `offset` on.

        Raises:
            UsageError: the file was cut or changed.
        """
        info = self._source.info(name)
        if offset < 0 or offset + into.size > info.size:
            raise ValueError(f"{name} has {info.size} bytes, not {into.size} from {offset} on")
        self.file(info.shard, info.begin + offset, into.data)

    def file(self, name: str, offset: int, into: memoryview) -> None:
        """Fill `into` with a file's bytes from `offset` on.

        Raises:
            UsageError: the file cannot be read, was cut or changed.
        """
        descriptor = self.open(name).fileno()
        done = 0
        while done < len(into):
            try:
                got = os.preadv(descriptor, [into[done:]], offset + done)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise UsageError(f"{shown(name)} cannot be read: {reason}; fetch the file again") from None
            if not got:
                raise UsageError(
                    f"{shown(name)} ends early: {len(into) - done} bytes are missing; fetch the file again"
                )
            done += got
        self.bytes_read += done

    def open(self, name: str) -> BinaryIO:
        """One of the checkpoint's files, open until `close`."""
        if name not in self._files:
            self._files[name] = self._source.open_file(name)
        return self._files[name]

    def close(self, *names: str) -> None:
        """Close these files, or all, and make sure that none changed since the checkpoint was opened.

        Raises:
            UsageError: one did.
        """
        for name in names or tuple(self._files):
            file = self._files.pop(name, None)
            if file is None:
                continue
            before = Stamp.of(file)
            file.close()
            with self._source.open_file(name) as again:
                if Stamp.of(again) != before:
                    raise UsageError(f"{shown(name)} changed while it was in use; start again")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
