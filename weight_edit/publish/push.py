"""The upload of an edited model to the Hugging Face Hub, after its verification."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.baking.card.card_and_manifest import origin_of
from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, read_manifest, record, records_of, sha256
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.calls import usable_token
from weight_edit.hub.source import Named
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.publish.upload import upload
from weight_edit.verification.verify import Verification, verify


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """The uploaded files, or for a dry run the files that would be uploaded.

    Attributes:
        repo_id: the repository.
        files: their names and sizes in bytes: what the commit has, each with the content that lies here; for a dry run
            what would be sent.
        url: of the commit; None for a dry run.
        verification: what was checked first.
        skipped: folders of other tools (`.git`, `.cache`, `__pycache__`) that were not sent.
        others: files that the repository has besides, from earlier commits or the Hub; empty for a dry run.
    """

    repo_id: str
    files: dict[str, int]
    url: str | None
    verification: Verification
    skipped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sent = self.url or "nothing was sent"
        return f"PushResult({self.repo_id!r}, {len(self.files)} files, {sum(self.files.values())} bytes, {sent})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "repo_id": self.repo_id,
            "files": self.files,
            "bytes": sum(self.files.values()),
            "url": self.url,
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
        repo_id: "owner/name"; created when it does not exist.
        base: the model it was edited from; what `weight_edit.json` names when None. Needed for a local folder,
            whose path is not recorded.
        private: create the repository as private.
        dry_run: verify and list the files, upload nothing.
        system, template, template_args, device: as in `verify`.
        token: Hub access token; the one saved by `hf auth login` when None. It is not stored or printed.

    Raises:
        UsageError: no output of ours, a wrong repository id, no access, or the Hub fails; whether something was
            committed is said.
        VerificationError: a check failed, or the checkpoint is marked as failed, and nothing was uploaded; or the
            commit has not what was sent.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"'{repo_id}' is no repository id; write owner/name") from error
    # Verification takes minutes: a token that cannot be sent is said before.
    usable_token(token)
    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give the output of bake or run")
    manifest = read_manifest(path)
    if manifest is None:
        raise UsageError(f"{path} has no {MANIFEST}; only outputs of bake and run are pushed")
    if manifest.get("failed"):
        raise VerificationError(f"{path} is marked as failed: {'; '.join(map(str, manifest['failed']))}")
    records, skipped = _unchanged_files(path, manifest)
    origin = origin_of(manifest, path)
    if base is None and not origin.on_hub and origin.model not in EMBEDDED:
        raise UsageError(
            f"{path} was edited from a local folder '{origin.model}'; say where it is with `base`", option="base"
        )
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
    if dry_run:
        return PushResult(
            repo_id=repo_id,
            files={name: sent.size for name, sent in records.items()},
            url=None,
            verification=checked,
            skipped=skipped,
        )
    commit = upload(path, records, repo_id, private=private, token=token)
    return PushResult(
        repo_id=repo_id, files=commit.files, url=commit.url, verification=checked, skipped=skipped, others=commit.others
    )


def _unchanged_files(path: Path, manifest: dict[str, Any]) -> tuple[dict[str, FileRecord], tuple[str, ...]]:
    """The records of all unchanged files, the manifest's included, and the skipped folders."""
    records = records_of(manifest)
    files, skipped = list_files(path)
    present = set(files) - {MANIFEST}
    if present != set(records):
        stray = sorted(present ^ set(records))[0]
        raise VerificationError(f"{path}: '{stray}' is not as {MANIFEST} lists it; bake again")
    for name, known in records.items():
        if sha256(path / name) != known.sha256:
            raise VerificationError(f"{path}: '{name}' has changed since it was baked; bake again")
    return {**records, MANIFEST: record(path, MANIFEST, "added")}, skipped
