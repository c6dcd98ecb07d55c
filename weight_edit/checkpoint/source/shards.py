"""Shards that are not on the disk yet: who brings them, and how parts of them are read meanwhile."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_MOST = 64 * 1024 * 1024


class ShardProvider(Protocol):
    """Brings a checkpoint's shards into its folder one at a time, and takes them away again."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Shard -> its bytes, for every shard that it can bring."""

    def read(self, shard: str, begin: int, count: int) -> bytes:
        """The `count` bytes from `begin` of a shard, without bringing it."""

    def identity(self, shard: str) -> str:
        """What tells a shard's content from any other's, such as a digest."""

    def fetch(self, shard: str) -> Path:
        """Bring a whole shard into the folder, checked; nothing to do when it is there."""

    def drop(self, shard: str) -> None:
        """Delete a shard that was brought; nothing to do when it is not there."""


class RangedFile(io.RawIOBase):
    """A shard that is not there, read by ranges as if it were: enough for headers and tensors."""

    def __init__(self, shards: ShardProvider, shard: str) -> None:
        self._shards, self._shard, self._place = shards, shard, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes, from the start."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the start."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a shard that is not there has no end to count from")
        self._place = offset
        return offset

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill the buffer's beginning; 0 at the end of the file."""
        count = min(len(buffer), self._shards.sizes[self._shard] - self._place, _MOST)
        if count <= 0:
            return 0
        buffer[:count] = self._shards.read(self._shard, self._place, count)
        self._place += count
        return count
