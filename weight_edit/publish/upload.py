"""The upload of files to a Hub repository in one commit, which is read back and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import Stamp, chunks, open_regular, printable
from weight_edit.checkpoint.manifest import FileRecord
from weight_edit.errors import FOREIGN_ERRORS, UsageError, VerificationError, first_line
from weight_edit.hub.calls import bars, unsigned, usable_token

_MESSAGE = "Upload a model edited with weight_edit"


@dataclass(frozen=True)
class Commit:
    """A commit as the Hub lists it.

    Attributes:
        url: its page.
        id: its hash.
        files: the files that were sent, with their sizes in bytes as the Hub has them.
        others: names of files that the repository has besides.
    """

    url: str
    id: str
    files: dict[str, int]
    others: tuple[str, ...]


def upload(
    folder: Path, records: Mapping[str, FileRecord], repo_id: str, *, private: bool = False, token: str | None = None
) -> Commit:
    """Upload files to a repository in one commit; the repository is created if missing.

    Args:
        folder: where they lie.
        records: what is sent, by name inside the folder. Names are names: `*` and `[1]` in them mean themselves.
        repo_id, private, token: as in `push`.

    Raises:
        UsageError: the Hub refuses, answers nonsense or cannot be reached; whether something was committed is said.
        VerificationError: the commit was made, and has not exactly these contents.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=usable_token(token))
    doing, committed = "made", False
    try:
        with bars():
            api.create_repo(repo_id, private=private, exist_ok=True)
            doing = "uploaded to"
            added = [CommitOperationAdd(name, folder.resolve() / name) for name in sorted(records)]
            # The long part first. What follows is one request, after which all files are there or none.
            api.preupload_lfs_files(repo_id, additions=added)
            doing = "committed to"
            made = api.create_commit(repo_id, operations=added, commit_message=_MESSAGE)
            committed, doing = True, "read back"
            found = _listed(api, repo_id, made.oid)
    except (httpx2.HTTPError, *FOREIGN_ERRORS) as error:
        # A server that fails, or a gateway that waits no longer, may have done it all the same.
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        answered = refused or doing != "committed to"
        raise UsageError(_told(repo_id, doing, committed, answered, error)) from error
    problems = [said for name in sorted(records) if (said := _difference(folder, name, records[name], found))]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise VerificationError(f"{repo_id} at commit {made.oid} has not what was sent: {problems[0]}{more}")
    return Commit(
        str(made.commit_url),
        str(made.oid),
        {name: int(found[name].size) for name in sorted(records)},
        tuple(sorted(found.keys() - records.keys())),
    )


def _listed(api: Any, repo_id: str, commit: str) -> dict[str, Any]:
    """The Hub's entry for every file of a commit, by name."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _told(repo_id: str, doing: str, committed: bool, answered: bool, error: BaseException) -> str:
    """One line on the error and on the present state of the Hub."""
    reason = unsigned(first_line(error)).rstrip(".")
    if type(error) is RuntimeError and error.__cause__ is not None:
        # The library's threads say which file it was, and the cause says why.
        error = error.__cause__
        reason = f"{reason}: {unsigned(first_line(error)).rstrip('.')}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if not isinstance(status, int) and not isinstance(error, OSError):
        # A reply that is no JSON, or JSON of another shape, says little by itself.
        reason = f"{type(error).__name__}: {reason}"
    if committed:
        left = "the commit was made, but what it has could not be checked; push again, which sends what is missing"
    elif answered:
        left = "nothing was committed"
    else:
        left = "whether it was committed is not known; push again, which sends what is missing"
    if status in (401, 403):
        left += f"; see `hf auth whoami`: the token needs write access to {repo_id.partition('/')[0]}"
    return f"'{repo_id}' could not be {doing}: {reason}; {left}"


def _difference(folder: Path, name: str, sent: FileRecord, found: Mapping[str, Any]) -> str | None:
    """The difference between a file of the commit and the one sent, in words; else None."""
    there = found.get(name)
    if there is None:
        return f"'{printable(name)}' is not there (does a .gitignore of the repository name it?)"
    if there.size != sent.size:
        return f"'{printable(name)}' has {there.size} bytes there and {sent.size} here"
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
