"""Shards that are not on disk yet: their provider, and reads of parts of them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_MOST = 64 * 1024 * 1024


class ShardProvider(Protocol):
    """A provider that puts a checkpoint's shards into its folder and deletes them again."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Shard -> its size in bytes, for every shard that can be fetched."""

    def read(self, shard: str, begin: int, count: int) -> bytes:
        """`count` bytes of a shard, beginning at `begin`, without fetching the whole shard."""

    def identity(self, shard: str) -> str:
        """A text that identifies a shard's content, such as a digest."""

    def fetch(self, shard: str) -> Path:
        """Put a whole, checked shard into the folder, if it is missing."""

    def drop(self, shard: str) -> None:
        """Delete a fetched shard, if it is there."""


class RangedFile(io.RawIOBase):
    """A file object for a shard that is not on disk, read by ranges."""

    def __init__(self, shards: ShardProvider, shard: str) -> None:
        self._shards, self._shard, self._place = shards, shard, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True; positions count from the start only."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the start."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a shard that is not there has no end to count from")
        self._place = offset
        return offset

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill the begin of the buffer; returns the number of bytes, 0 at the end of the file."""
        count = min(len(buffer), self._shards.sizes[self._shard] - self._place, _MOST)
        if count <= 0:
            return 0
        buffer[:count] = self._shards.read(self._shard, self._place, count)
        self._place += count
        return count
