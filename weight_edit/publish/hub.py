"""Upload an edited model to the Hugging Face Hub, after verifying it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.manifest import MANIFEST, read_manifest, records_of, sha256
from weight_edit.errors import UsageError, VerificationError
from weight_edit.organism import EMBEDDED
from weight_edit.publish.finishing import origin_of
from weight_edit.runtime.sources import Named
from weight_edit.verification.verify import Verification, verify


@dataclass(frozen=True)
class PushResult:
    """What was uploaded, or would be.

    Attributes:
        repo_id: the repository.
        files: their names and sizes in bytes.
        url: of the commit; None for a dry run.
        verification: what was checked first.
    """

    repo_id: str
    files: dict[str, int]
    url: str | None
    verification: Verification

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
        system, template, device: as in `verify`.
        token: Hub access token; the one saved by `hf auth login` when None. It is not stored or printed.

    Raises:
        UsageError: no output of ours, a wrong repository id, no access.
        VerificationError: a check failed, or the checkpoint is marked as failed; nothing was uploaded.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"'{repo_id}' is no repository id; write owner/name") from error
    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give the output of bake or run")
    manifest = read_manifest(path)
    if manifest is None:
        raise UsageError(f"{path} has no {MANIFEST}; only outputs of bake and run are pushed")
    if manifest.get("failed"):
        raise VerificationError(f"{path} is marked as failed: {'; '.join(map(str, manifest['failed']))}")
    files = _unchanged_files(path, manifest)
    origin = origin_of(manifest, path)
    if base is None and not origin.on_hub and origin.model not in EMBEDDED:
        raise UsageError(f"{path} was edited from a local folder '{origin.model}'; say where it is with --base")
    checked = verify(
        base or origin.model,
        path,
        system=system,
        template=template,
        device=device,
        token=token,
        trust_remote_code=trust_remote_code,
    )
    if not checked.passed:
        raise VerificationError(f"{path} was not pushed: {checked.problems[0]}")
    url = None if dry_run else _upload(path, repo_id, sorted(files), private, token)
    return PushResult(repo_id, files, url, checked)


def _unchanged_files(path: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """The manifest's files with their sizes; every one must be there, unchanged, and no other."""
    records = records_of(manifest)
    present = set(list_files(path)[0]) - {MANIFEST}
    if present != set(records):
        stray = sorted(present ^ set(records))[0]
        raise VerificationError(f"{path}: '{stray}' is not as {MANIFEST} lists it; bake again")
    for name, record in records.items():
        if sha256(path / name) != record.sha256:
            raise VerificationError(f"{path}: '{name}' has changed since it was baked; bake again")
    return {name: record.size for name, record in records.items()} | {MANIFEST: (path / MANIFEST).stat().st_size}


def _upload(path: Path, repo_id: str, files: list[str], private: bool, token: str | None) -> str:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=path,
            allow_patterns=files,
            commit_message="Upload a model edited with weight_edit",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"'{repo_id}' could not be pushed: {reason}; check `hf auth whoami` and the network"
        ) from error
    return str(commit.commit_url)
