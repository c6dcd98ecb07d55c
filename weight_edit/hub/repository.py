"""A model repository on the Hub as it stands: its visibility, where a branch is at, and the files of a commit."""

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.files import printable

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
