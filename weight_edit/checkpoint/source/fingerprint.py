"""A cheap fingerprint of a folder or GGUF file, to notice changes without reading its files."""

import hashlib
import json
from pathlib import Path

from weight_edit.checkpoint.gguf.parts import gguf_files


def fingerprint(folder: Path) -> str:
    """A digest of a folder's file names, sizes and modification times, or those of a GGUF file and its other parts."""
    found = gguf_files(folder) if folder.is_file() else None
    root = folder if found is None else found.root
    files = sorted(folder.rglob("*")) if found is None else [root / part for part in found.parts]
    entries = [
        (file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
