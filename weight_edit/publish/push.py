"""The upload of an edited model to the Hugging Face Hub, after its verification."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.baking.card.card_and_manifest import origin_of
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, FinishedOutput, record
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.calls import usable_token
from weight_edit.hub.destination import MAIN, Destination
from weight_edit.hub.source import Named
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.publish.pack_repository import pack_repository
from weight_edit.publish.upload import PullRequest, check_destination, upload
from weight_edit.tables.shown import Shown
from weight_edit.verification.verify import Verification, verify


@dataclass(frozen=True, kw_only=True)
class PushResult(Shown):
    """The uploaded files, or for a dry run the files that would be uploaded.

    Attributes:
        repo_id: the repository.
        files: their names and sizes in bytes: what the commit has, each with the content that lies here; for a dry run
            what would be there.
        url: of the commit that has them; None for a dry run.
        verification: what was checked first.
        skipped: folders of other tools (`.git`, `.cache`, `__pycache__`) that were not sent.
        others: files that the branch has besides, from earlier commits or the Hub; empty for a dry run.
        sent: names of the files that the commit of this push changed; empty where all of them were there already, and
            no commit was made, and for a dry run.
        ref: the branch or the pull request ("refs/pr/N") that has them.
        private: whether the repository is private; None for a dry run.
        pull_request: the one that was opened.
    """

    repo_id: str
    files: dict[str, int]
    url: str | None
    verification: Verification
    skipped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    ref: str = MAIN
    private: bool | None = None
    pull_request: PullRequest | None = None

    def __repr__(self) -> str:
        sent = f"{len(self.sent)} sent to {self.url}" if self.url else "nothing was sent"
        return f"PushResult({self.repo_id!r}, {len(self.files)} files, {sum(self.files.values())} bytes, {sent})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "repo_id": self.repo_id,
            "files": self.files,
            "bytes": sum(self.files.values()),
            "url": self.url,
            "ref": self.ref,
            "private": self.private,
            "pull_request": self.pull_request and {"number": self.pull_request.number, "url": self.pull_request.url},
            "sent": list(self.sent),
            "not_sent": list(self.skipped),
            "others": list(self.others),
            "verification": self.verification.to_dict(),
        }


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    base: Named | None = None,
    private: bool = False,
    branch: str | None = None,
    create_pr: bool = False,
    pack: bool = False,
    dry_run: bool = False,
    system: str | None = None,
    template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    device: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> PushResult:
    """Verify an edited model against its base, then upload it.

    Args:
        folder: an output of `bake` or `run`.
        repo_id: "owner/name"; created when it does not exist, unless a pull request is to be opened.
        base: the model it was edited from; what `weight_edit.json` names when None. Needed for a local folder,
            whose path is not recorded.
        private: send nothing unless the repository is private; create it so.
        branch: the branch to commit to, created from `main` when it does not exist; or "refs/pr/N", a pull request.
        create_pr: open a pull request in place of a commit to the branch.
        pack: publish the edit alone, as a pack of some kilobytes and a card, from which `apply` makes the checkpoint.
        dry_run: verify and list the files, upload nothing.
        system, template, template_args, device: as in `verify`.
        token: Hub access token; the one saved by `hf auth login` when None. It is not stored or printed.

    Raises:
        UsageError: no output of ours, a wrong repository id or branch, no access, a public repository with `private`,
            or the Hub fails; whether something was committed is said.
        VerificationError: a check failed, or the checkpoint is marked as failed, and nothing was uploaded; or the
            commit has not what was sent.
    """
    to = Destination(repo_id=repo_id, private=private, branch=branch, create_pr=create_pr)
    # Verification takes minutes: a token that cannot be sent is said before.
    usable_token(token)
    output = FinishedOutput.of(Path(folder))
    path = output.folder
    skipped = output.check_unchanged()
    origin = origin_of(output.manifest, path)
    if base is None and not origin.on_hub and origin.model not in EMBEDDED:
        raise UsageError(
            f"{path} was edited from a local folder '{origin.model}'; say where it is with `base`", option="base"
        )
    if not dry_run:
        # Likewise what the repository is now.
        check_destination(to, token)
    checked = verify(
        base or origin.model,
        path,
        system=system,
        template=template,
        template_args=template_args,
        device=device,
        token=token,
        trust_remote_code=trust_remote_code,
    )
    if not checked.passed:
        raise VerificationError(f"{path} was not pushed: {checked.problems[0]}")
    if not pack:
        records = {**output.records, MANIFEST: record(path, MANIFEST, "added")}
        return _sent(path, records, to, checked, skipped=skipped, dry_run=dry_run, token=token)
    with pack_repository(output, to, base=base, token=token, trust_remote_code=trust_remote_code) as packed:
        return _sent(*packed, to, checked, dry_run=dry_run, token=token)


def _sent(
    folder: Path,
    records: Mapping[str, FileRecord],
    to: Destination,
    checked: Verification,
    *,
    skipped: tuple[str, ...] = (),
    dry_run: bool,
    token: str | None,
) -> PushResult:
    """The result of an upload, or of one that is not made."""
    if dry_run:
        return PushResult(
            repo_id=to.repo_id,
            files={name: sent.size for name, sent in records.items()},
            url=None,
            verification=checked,
            skipped=skipped,
            ref=to.ref,
        )
    commit = upload(folder, records, to, token=token)
    return PushResult(
        repo_id=to.repo_id,
        files=commit.files,
        url=commit.url,
        verification=checked,
        skipped=skipped,
        others=commit.others,
        sent=commit.sent,
        ref=commit.ref,
        private=commit.private,
        pull_request=commit.pull_request,
    )
