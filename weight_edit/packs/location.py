"""The file of a pack, by what the user calls it: a file, a folder with one, or a repository on the Hub."""

import os
import re
from pathlib import Path

from weight_edit.checkpoint.files import list_files, printable
from weight_edit.errors import UsageError
from weight_edit.hub.one_file import fetch_one

SUFFIX = ".safetensors"

MOST = 1 << 36
"""Bytes of a pack that is fetched; one that is not reversible has some kilobytes."""

_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[^:]+))?", re.ASCII)


def local_pack(name: str | os.PathLike[str], *, token: str | None = None) -> Path:
    """The path of a pack's file; one on the Hub is fetched, whole or not at all, and nothing else of its repository.

    Args:
        name: the file, a folder with one such file, or "owner/name" on the Hub; there "owner/name:file.safetensors" is
            one of several, and "owner/name@revision" one at a branch, tag or commit. A path that is there wins.
        token: Hub access token.

    Raises:
        UsageError: there is no such file, or the folder or repository has none or several; or the Hub fails, or sends
            another file than it lists.
    """
    path = Path(name).expanduser()
    said = printable(str(path))
    try:
        if path.is_dir():
            return path / _only([each for each in list_files(path)[0] if each.endswith(SUFFIX)], said)
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"{said} cannot be read; give the file that pack wrote") from error
    found = _ON_HUB.fullmatch(str(name))
    if found is None or (found["file"] is None and str(name).endswith(SUFFIX)):
        raise UsageError(f"there is no pack {said}; give the file that pack wrote, or owner/name on the Hub")
    repo, wanted = found["repo"], found["file"]

    def choose(files: list[str]) -> str:
        if wanted is None:
            return _only([file for file in files if file.endswith(SUFFIX)], repo)
        if wanted not in files:
            raise UsageError(f"{repo} has no file '{printable(wanted)}'")
        return wanted

    return fetch_one(repo, choose, most=MOST, revision=found["revision"], token=token).path


def _only(files: list[str], where: str) -> str:
    """The one file that can be a pack.

    Raises:
        UsageError: there is none, or more than one.
    """
    if len(files) != 1:
        shown = "".join(f", {printable(file, 60)}" for file in files[:3])
        raise UsageError(
            f"{where} has {len(files)} files that end in {SUFFIX}{shown}, where a pack is one; name the file, of a "
            "repository as owner/name:file"
        )
    return files[0]
