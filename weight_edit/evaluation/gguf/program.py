"""The program `llama-server` of llama.cpp, found on this machine."""

import os
import shutil
from pathlib import Path

from weight_edit.errors import UsageError

VARIABLE = "WEIGHT_EDIT_LLAMA_SERVER"
"""The environment variable with the program's path, for one that is not on PATH."""

PROGRAM = "llama-server"


def find_program() -> Path | None:
    """The path of `llama-server`: `$WEIGHT_EDIT_LLAMA_SERVER`, else the one on PATH; None where there is none.

    Raises:
        UsageError: the variable names no program.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        found = shutil.which(Path(named).expanduser())
        if found is None:
            raise UsageError(
                f"the environment variable {VARIABLE} names no program that can be run; give the path of llama.cpp's "
                f"{PROGRAM}, or unset it"
            )
        return Path(found)
    found = shutil.which(PROGRAM)
    return None if found is None else Path(found)
