"""A cheap fingerprint of a folder, to notice changes without reading its files."""

import hashlib
import json
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """A digest of a folder's file names, sizes and modification times."""
    entries = [
        (file.relative_to(folder).as_posix(), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
