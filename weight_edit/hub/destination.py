"""The destination of an upload: a repository, and its main branch, another branch or a pull request."""

import re
from dataclasses import dataclass

from weight_edit.errors import UsageError

MAIN = "main"

_BRANCH = re.compile(r"[A-Za-z0-9_][\w./+-]{0,199}", re.ASCII)
_PULL_REQUEST = re.compile(r"refs/pr/[1-9][0-9]{0,8}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an upload goes.

    Attributes:
        repo_id: owner/name on the Hub; created if missing, unless the upload is to be a pull request.
        private: nothing may be sent to it unless it is private; a new one is made so. False leaves a new one to what
            the owner's settings say, and one that exists as it is.
        branch: created from `main` if missing, never moved but by a commit on top of it; or "refs/pr/7", a pull request
            that is there. None is `main`.
        create_pr: open a pull request to the branch instead of committing to it.

    Raises:
        UsageError: no id of a repository, or no name of a branch.
    """

    repo_id: str
    private: bool = False
    branch: str | None = None
    create_pr: bool = False

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise UsageError(f"'{self.repo_id}' is no repository id; write owner/name") from error
        if "/" not in self.repo_id:
            raise UsageError(f"'{self.repo_id}' is no repository id; write owner/name")
        if self.branch is not None and not _names_a_branch(self.branch):
            raise UsageError(f"`branch` '{self.branch}' is no name that a branch can have", option="branch")
        if self.create_pr and self.of_pull_request:
            raise UsageError(
                f"{self.branch} is a pull request already, to which a commit is added; leave `create_pr` out",
                option="create_pr",
            )

    @property
    def ref(self) -> str:
        """The branch, or the pull request that is there."""
        return self.branch or MAIN

    @property
    def of_pull_request(self) -> bool:
        """Whether the upload adds to a pull request that is there."""
        return self.branch is not None and _PULL_REQUEST.fullmatch(self.branch) is not None

    def __str__(self) -> str:
        """The destination in words."""
        if self.create_pr:
            return f"a pull request to {self.ref} of {self.repo_id}"
        return self.repo_id if self.branch is None else f"{self.ref} of {self.repo_id}"


def _names_a_branch(name: str) -> bool:
    """Whether git takes the name, and the Hub does not take it for something else."""
    if _PULL_REQUEST.fullmatch(name):
        return True
    parts = name.split("/")
    return (
        _BRANCH.fullmatch(name) is not None
        and not _COMMIT.fullmatch(name)
        and parts[0] != "refs"
        and ".." not in name
        and all(part and not part.startswith(".") and not part.endswith((".", ".lock")) for part in parts)
    )
