"""The cache of proven anatomies, and its keys."""

import hashlib
import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from weight_edit.checkpoint.files import open_regular
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError
from weight_edit.proofs.record import ProvenAnatomy
from weight_edit.utils.cache_folder import cache_folder
from weight_edit.version import __version__

_MAX_BYTES = 50_000_000
PACKAGE = Path(__file__).parents[1]
"""The package's folder: every source in it is part of a key, so a change voids old records."""


def key_of(*given: bytes) -> str | None:
    """The cache key: SHA-256, in hexadecimal, of all inputs of a proof; None if one is missing.

    These are config.json, the names and shapes on disk, the versions of torch, transformers and Python, and every
    source file of this package: a changed line never meets an old record.

    Args:
        given: the bytes of config.json, and a digest of the tensors.
    """
    digest = hashlib.sha256()
    try:
        versions = [__version__, version("torch"), version("transformers"), platform.python_version()]
        sources = [(path.relative_to(PACKAGE).as_posix(), path.read_bytes()) for path in sorted(PACKAGE.rglob("*.py"))]
    except (OSError, PackageNotFoundError):
        return None
    if not sources:
        return None
    for part in (*given, *(text.encode() for text in versions)):
        digest.update(hashlib.sha256(part).digest())
    for name, content in sources:
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def remembered(key: str) -> ProvenAnatomy | None:
    """The cached record; None if there is none, it is damaged, or it belongs to another user."""
    path = _path(key)
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            # An edit follows what is remembered: nobody else may say which tensors it leaves out.
            if os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):
                return None
            entry = json.loads(file.read(_MAX_BYTES))
        # A record that was cut, mixed up or changed by hand would leave tensors out of every edit that follows it.
        if not isinstance(entry, dict) or entry.get("key") != key or entry.get("sha256") != _digest(entry["proven"]):
            return None
        return ProvenAnatomy.from_dict(entry.get("proven"))
    except (UsageError, OSError, KeyError, ValueError, RecursionError):
        return None


def remember(key: str, found: ProvenAnatomy) -> None:
    """Store a record, whole or not at all.

    A folder that cannot be written is no error: the proof is repeated next time.
    """
    path = _path(key)
    if path is None:
        return
    proven = found.to_dict()
    text = json.dumps({"key": key, "sha256": _digest(proven), "proven": proven})
    with suppress(OSError, UsageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)


def _digest(proven: object) -> str:
    """SHA-256 of a record's content, in hexadecimal; the same before writing and after reading."""
    return hashlib.sha256(json.dumps(proven).encode()).hexdigest()


def _path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "anatomy" / f"{key}.json"
