"""The lock on a run's folder: two runs in one folder would each take the other's files for somebody else's."""

import fcntl
import os
from pathlib import Path

from weight_edit.checkpoint.files import printable
from weight_edit.errors import UsageError


class FolderLock:
    """Held on a folder by one process, from when it is made until it is released or the process has ended.

    It is the system's (flock) on the folder itself, so that it leaves no file behind and moves with the folder.

    Args:
        path: a folder that is there.

    Raises:
        UsageError: another run holds it, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{printable(str(path))} cannot be opened: {error.strerror}", option="out") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UsageError(
                f"another run is going on in {printable(str(path))}; wait for it, stop it, or choose another `out`",
                option="out",
            ) from None
        except OSError:
            # A file system without locks: nobody can know.
            return

    def release(self) -> None:
        """Let go of the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
