"""A model repository on the Hub as it stands: its visibility, where a branch is at, and the files of a commit."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.files import Stamp, chunks, open_regular, printable
from weight_edit.checkpoint.manifest import FileRecord
from weight_edit.errors import UsageError
from weight_edit.hub.destination import Destination

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MOST_FILES = 100_000
"""Files of a repository that are listed; the Hub itself takes no more."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Standing:
    """Where a branch of a repository is at.

    Attributes:
        commit: the hash of its newest commit.
        private: whether the repository is private.
    """

    commit: str
    private: bool


def standing(api: "HfApi", repo_id: str, ref: str | None = None) -> Standing:
    """Where a branch, a pull request or, for None, the main branch is at.

    Raises:
        RepositoryNotFoundError, RevisionNotFoundError, ValueError: it is not there, or the reply is none of the Hub's.
    """
    info = api.model_info(repo_id, revision=ref)
    if type(info.private) is not bool:
        raise ValueError("the reply does not say whether the repository is private")
    return Standing(commit_id(info.sha), info.private)


def commit_id(found: object) -> str:
    """The hash of a commit.

    Raises:
        ValueError: it has not that form.
    """
    if not isinstance(found, str) or not _COMMIT.fullmatch(found):
        raise ValueError(f"{printable(repr(found), 60)} is no commit")
    return found


def listed(api: "HfApi", repo_id: str, commit: str) -> dict[str, Any]:
    """The Hub's entry for every file of a commit, by name.

    Raises:
        ValueError: there is no end of them.
    """
    from huggingface_hub.hf_api import RepoFile

    tree = list(islice(api.list_repo_tree(repo_id, recursive=True, revision=commit), _MOST_FILES + 1))
    if len(tree) > _MOST_FILES:
        raise ValueError(f"more than {_MOST_FILES:,} files are listed")
    return {str(entry.path): entry for entry in tree if isinstance(entry, RepoFile)}


def check_visibility(to: Destination, found: Standing) -> None:
    """Refuse to send what was to be private to a public repository.

    Raises:
        UsageError: it is public.
    """
    if to.private and not found.private:
        raise UsageError(
            f"{to.repo_id} is public, and all that is sent to it is public at once; nothing was sent. Make it private "
            "in its settings on the Hub, name another repository, or leave `private` out",
            option="private",
        )


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
