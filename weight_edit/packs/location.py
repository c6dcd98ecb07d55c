"""The file of a pack, by what the user calls it."""

import os
from pathlib import Path

from weight_edit.checkpoint.files import list_files, printable
from weight_edit.errors import UsageError

SUFFIX = ".safetensors"


def local_pack(name: str | os.PathLike[str], *, token: str | None = None) -> Path:
    """The path of a pack's file.

    Args:
        name: the file, or a folder with one such file.
        token: Hub access token; nothing is fetched yet.

    Raises:
        UsageError: there is no such file, or the folder has none or several.
    """
    path = Path(name).expanduser()
    said = printable(str(path))
    try:
        if path.is_dir():
            found = [each for each in list_files(path)[0] if each.endswith(SUFFIX)]
            if len(found) != 1:
                raise UsageError(
                    f"{said} has {len(found)} files that end in {SUFFIX}, where a pack is one; name the file"
                )
            return path / found[0]
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"{said} cannot be read; give the file that pack wrote") from error
    raise UsageError(f"there is no pack {said}; give the file that pack wrote")
