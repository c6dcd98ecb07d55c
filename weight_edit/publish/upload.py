"""The upload of files to a Hub repository in one commit, which is read back and checked."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.manifest import FileRecord
from weight_edit.errors import FOREIGN_ERRORS, UsageError, VerificationError, first_line, plain
from weight_edit.hub.calls import hub_library, unsigned, usable_token
from weight_edit.hub.destination import MAIN, Destination
from weight_edit.hub.repository import Standing, commit_id, listed, standing
from weight_edit.publish.readback import difference
from weight_edit.redaction import redacted
from weight_edit.utils.progress import announce, beside

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MESSAGE = "Upload a model edited with weight_edit"
_CARD = "README.md"
_LONGEST = 200
"""Characters of what a server says of itself."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request on the Hub: its number and its page."""

    number: int
    url: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit as the Hub lists it.

    Attributes:
        url: its page.
        id: its hash.
        ref: the branch that it is the newest commit of, or "refs/pr/N".
        files: the files that were to be there, with their sizes in bytes as the Hub has them.
        sent: names of those that this commit changed; empty where the branch had all of them, and no commit was made.
        others: names of files that the branch has besides.
        private: whether the repository is private.
        pull_request: the one that was opened.
    """

    url: str
    id: str
    ref: str
    files: dict[str, int]
    sent: tuple[str, ...]
    others: tuple[str, ...]
    private: bool
    pull_request: PullRequest | None = None


def upload(folder: Path, records: Mapping[str, FileRecord], to: Destination, *, token: str | None = None) -> Commit:
    """Upload files to a repository in one commit, without those that are there already.

    An upload that was interrupted goes on: contents that the Hub has are not sent again, though no commit names them.

    Args:
        folder: where they lie.
        records: what is sent, by name inside the folder. Names are names: `*` and `[1]` in them mean themselves.
        to: where it goes.
        token: as in `push`.

    Raises:
        UsageError: the Hub refuses, answers nonsense or cannot be reached, or a repository that had to be private is
            public; whether something was committed is said.
        VerificationError: the commit was made, and has not exactly these contents, or is not where it was to be.
    """
    from huggingface_hub import HfApi

    return _Upload(folder, records, to, HfApi(token=usable_token(token))).run()


def check_destination(to: Destination, token: str | None = None) -> None:
    """Refuse an upload whose end can be told from what the repository is now. Nothing is changed.

    Raises:
        UsageError: the Hub cannot be reached or refuses, a repository that had to be private is public, or there is
            none to open a pull request in.
    """
    from huggingface_hub import HfApi

    _Upload(Path(), {}, to, HfApi(token=usable_token(token))).check()


class _Upload:
    """One upload, with how far it has come.

    Attributes:
        doing: what is done to the repository now, in words.
        asked_for: what the Hub was asked to create, and has not shown yet.
        made: what of it stays although nothing is committed, in words.
        committed: whether the Hub has said that the commit was made.
    """

    def __init__(self, folder: Path, records: Mapping[str, FileRecord], to: Destination, api: "HfApi") -> None:
        self.folder = folder
        self.records = records
        self.to = to
        self.api = api
        self.doing = "looked up"
        self.asked_for: str | None = None
        self.made: list[str] = []
        self.committed = False

    def run(self) -> Commit:
        """The commit, made and read back."""
        with self._one_line(), hub_library(), _plain_warnings():
            head = self._branch(self._repository())
            self.doing = "compared with what is here"
            there = listed(self.api, self.to.repo_id, head.commit)
            changed = [
                name for name in sorted(self.records) if difference(self.folder, name, self.records[name], there)
            ]
            if not changed:
                return self._commit_of(head, there)
            return self._read_back(changed, *self._send(changed, head))

    def check(self) -> None:
        """Look at the repository, without a change."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._one_line(), hub_library():
            try:
                self._check_visibility(standing(self.api, self.to.repo_id))
            except RepositoryNotFoundError:
                self._check_may_create()

    def _repository(self) -> Standing:
        """Where the main branch is at; the repository is created if missing."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            found = standing(self.api, self.to.repo_id)
        except RepositoryNotFoundError:
            self._check_may_create()
            self.doing, self.asked_for = "made", "the repository"
            # One that is there all the same is of somebody else, and is not seen with this token.
            self.api.create_repo(self.to.repo_id, private=self.to.private or None)
            found = standing(self.api, self.to.repo_id)
            self.made.append("the repository was created")
            self.asked_for = None
        self._check_visibility(found)
        return found

    def _check_visibility(self, found: Standing) -> None:
        """Refuse to send what was to be private to a public repository.

        Raises:
            UsageError: it is public.
        """
        if self.to.private and not found.private:
            raise UsageError(
                f"{self.to.repo_id} is public, and all that is sent to it is public at once; nothing was sent. Make it "
                "private in its settings on the Hub, name another repository, or leave `private` out",
                option="private",
            )

    def _check_may_create(self) -> None:
        if self.to.create_pr or self.to.of_pull_request:
            raise UsageError(
                f"there is no repository {self.to.repo_id} that this token can see, and so none for a pull request",
                option="create_pr",
            )

    def _branch(self, main: Standing) -> Standing:
        """Where the branch is at; it is created from `main` if missing."""
        from huggingface_hub.errors import RevisionNotFoundError

        ref = self.to.ref
        if ref == MAIN:
            return main
        self.doing = f"looked up at '{ref}'"
        try:
            return standing(self.api, self.to.repo_id, ref)
        except RevisionNotFoundError as error:
            if self.to.create_pr or self.to.of_pull_request:
                raise UsageError(f"{self.to.repo_id} has no '{ref}'; nothing was sent", option="branch") from error
        self.doing, self.asked_for = f"given the branch '{ref}'", f"the branch '{ref}'"
        self.api.create_branch(self.to.repo_id, branch=ref, revision=main.commit)
        found = standing(self.api, self.to.repo_id, ref)
        self.made.append(f"the branch '{ref}' was created")
        self.asked_for = None
        return found

    def _send(self, changed: list[str], head: Standing) -> tuple[str, PullRequest | None]:
        """The hash of the commit that was made, and the pull request."""
        from huggingface_hub import CommitOperationAdd, ModelCard

        if _CARD in changed:
            self.doing = "given the model card"
            # Terabytes are sent before the commit is asked for, which the Hub refuses for a card that it cannot read.
            ModelCard((self.folder / _CARD).read_text(encoding="utf-8"), ignore_metadata_errors=True).validate()
        self.doing = "uploaded to"
        where = {"revision": self.to.branch, "create_pr": self.to.create_pr or None}
        added: list[CommitOperationAdd] = [CommitOperationAdd(name, self.folder.resolve() / name) for name in changed]
        size = sum(self.records[name].size for name in changed)
        with beside(f"uploading {len(changed)} files, {size:,} bytes, to {self.to}"):
            # The long part first. What follows is one request, after which all files are there or none.
            self.api.preupload_lfs_files(self.to.repo_id, additions=added, **where)
        self.doing = "committed to"
        made = self.api.create_commit(
            self.to.repo_id, operations=added, commit_message=_MESSAGE, parent_commit=head.commit, **where
        )
        self.doing = "read back"
        # Whatever else the reply says: it is one to a commit that was made.
        self.committed = True
        if not self.to.create_pr:
            return commit_id(made.oid), None
        number = int(str(made.pr_num))
        return commit_id(made.oid), PullRequest(number, f"{self.api.endpoint}/{self.to.repo_id}/discussions/{number}")

    def _read_back(self, changed: list[str], commit: str, pull_request: PullRequest | None) -> Commit:
        """The commit that was made, as the Hub lists it now.

        Raises:
            VerificationError: it has not what was sent, or is not where it was to be.
        """
        ref = self.to.ref if pull_request is None else f"refs/pr/{pull_request.number}"
        found = standing(self.api, self.to.repo_id, ref)
        made = f"{self.to.repo_id} at commit {commit}"
        if found.commit != commit:
            raise VerificationError(
                f"{made}: the commit was made, but {ref} is at {found.commit}; look at the repository"
            )
        there = listed(self.api, self.to.repo_id, found.commit)
        problems = [
            said for name in sorted(self.records) if (said := difference(self.folder, name, self.records[name], there))
        ]
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise VerificationError(f"{made} has not what was sent: {problems[0]}{more}")
        if self.to.private and not found.private:
            raise VerificationError(f"{made}: the commit was made, and the repository has become public meanwhile")
        return self._commit_of(found, there, ref=ref, sent=tuple(changed), pull_request=pull_request)

    def _commit_of(
        self,
        found: Standing,
        there: Mapping[str, object],
        *,
        ref: str | None = None,
        sent: tuple[str, ...] = (),
        pull_request: PullRequest | None = None,
    ) -> Commit:
        return Commit(
            # By the Hub's own form, whatever address a reply gives.
            url=f"{self.api.endpoint}/{self.to.repo_id}/commit/{found.commit}",
            id=found.commit,
            ref=ref or self.to.ref,
            files={name: self.records[name].size for name in sorted(self.records)},
            sent=sent,
            others=tuple(sorted(redacted(name) for name in there.keys() - self.records.keys())),
            private=found.private,
            pull_request=pull_request,
        )

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Within the context, whatever goes wrong with the Hub is one line."""
        import httpx2

        try:
            yield
        # The library has names without values where a reply is of another object.
        except (httpx2.HTTPError, httpx2.InvalidURL, NameError, *FOREIGN_ERRORS) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise one line on the error and on the present state of the Hub.

        Raises:
            UsageError: always.
        """
        from huggingface_hub.errors import HfHubHTTPError

        reason, cause = _reason(error)
        response = cause.response if isinstance(cause, HfHubHTTPError) else None
        status = None if response is None else response.status_code
        # A server that fails, or a gateway that waits no longer, may have done it all the same.
        refused = response is not None and response.status_code < 500 and not response.history
        if self.committed:
            left = "the commit was made, but what it has could not be checked; push again, which sends what is missing"
        elif refused or self.doing != "committed to":
            unseen = [f"{self.asked_for} may have been created"] if self.asked_for and not refused else []
            left = "; ".join([*self.made, *unseen, "nothing was committed"])
        elif self.to.create_pr:
            left = "whether a pull request was opened is not known; look at the repository before you push again"
        else:
            left = "whether it was committed is not known; push again, which sends what is missing"
        if status in (401, 403):
            left += f"; see `hf auth whoami`: the token needs write access to {self.to.repo_id.partition('/')[0]}"
        if status == 412:
            left += f"; {self.to.ref} has moved on meanwhile: push again"
        raise UsageError(f"'{self.to.repo_id}' could not be {self.doing}: {reason}; {left}") from error


def _reason(error: BaseException) -> tuple[str, BaseException]:
    """What went wrong in words, and the error that says so."""
    from huggingface_hub.errors import HfHubHTTPError

    reason = unsigned(first_line(error)).rstrip(".")
    if type(error) is RuntimeError and error.__cause__ is not None:
        # The library's threads say which file it was, and the cause says why.
        error = error.__cause__
        reason = f"{reason}: {unsigned(first_line(error)).rstrip('.')}"
    if isinstance(error, HfHubHTTPError):
        # A quota, a file that is too large: the status alone does not say it.
        lines = (error.server_message or "").splitlines() or [""]
        said = plain(unsigned(redacted(lines[0]))).rstrip(".")
        if said and said not in plain(redacted(reason)):
            reason += f" ({printable(said, _LONGEST)})"
    elif not isinstance(error, OSError):
        # A reply that is no JSON, or JSON of another shape, says little by itself.
        reason = f"{type(error).__name__}: {reason}"
    return printable(redacted(reason), 3 * _LONGEST), error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Within the context, what the library warns of, a server's words among it, is announced in plain lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for each in dict.fromkeys(str(each.message) for each in caught):
                announce(printable(plain(unsigned(redacted(each))), 3 * _LONGEST))
