"""A disk's write speed, for an estimate of a bake's duration."""

import os
import tempfile
import time
from pathlib import Path

_PROBE = 64 * 1024 * 1024
_PIECE = 4 * 1024 * 1024
_GUESS = 200_000_000.0


def disk_rate(out: Path) -> float:
    """The write speed in bytes per second at the place of `out`, by an unnamed file.

    Where nothing can be written, a guess: that of a slow disk.
    """
    folder = out.parent.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    piece = os.urandom(_PIECE)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            began = time.monotonic()
            for _ in range(_PROBE // _PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            return _PROBE / max(1e-6, time.monotonic() - began)
    except OSError:
        return _GUESS
