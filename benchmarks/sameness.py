"""Whether folders have the same bytes."""

import hashlib
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder: its path there -> SHA-256."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
