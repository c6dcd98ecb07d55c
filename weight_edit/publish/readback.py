"""The files of an upload, compared with what a commit on the Hub has."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import Stamp, chunks, open_regular, printable
from weight_edit.checkpoint.manifest import FileRecord


def difference(folder: Path, name: str, sent: FileRecord, found: Mapping[str, Any]) -> str | None:
    """The difference between a file of a commit and the one here, in words; else None."""
    there = found.get(name)
    if there is None:
        return f"'{printable(name)}' is not there (does a .gitignore of the repository name it?)"
    if there.size != sent.size:
        return f"'{printable(name)}' has {printable(str(there.size))} bytes there and {sent.size} here"
    if there.lfs is not None:
        same = there.lfs.sha256 == sent.sha256
    else:
        # Of a file that is no LFS file the Hub tells git's own digest, which holds for the content checked again here.
        digest, blob = _digests(folder / name)
        same = digest == sent.sha256 and blob == there.blob_id
    return None if same else f"'{printable(name)}' has another content there than here"


def _digests(path: Path) -> tuple[str, str]:
    """A file's SHA-256 and git's blob SHA-1, in one pass."""
    with open_regular(path) as file:
        size = Stamp.of(file).size
        plain, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for piece in chunks(file, size, str(path)):
            plain.update(piece)
            blob.update(piece)
    return plain.hexdigest(), blob.hexdigest()
