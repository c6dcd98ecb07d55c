"""The base of a packed edit: where it is found, its files' digests, and whether another one is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.baking.card.card_and_manifest import origin_of
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, digest_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.hub.source import Source, resolve
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.packs.file import Pack
from weight_edit.utils.progress import bar


@dataclass(frozen=True, kw_only=True)
class BaseVerdict:
    """Whether a base is the one that a packed edit was made of.

    Attributes:
        same: True and False where that is known before anything is written; None where it is not.
        how: in words, what that was told by.
        differing: files of which it is known that they differ, sorted.
    """

    same: bool | None
    how: str
    differing: tuple[str, ...] = ()


def base_at_hand(manifest: Mapping[str, Any], folder: Path) -> Source | None:
    """The base that a manifest names, if its files are on this disk: embedded, or in the Hub's cache.

    Nothing is downloaded.
    """
    origin = origin_of(manifest, folder)
    if not origin.on_hub:
        return resolve(origin.model) if origin.model in EMBEDDED else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(origin.model, revision=origin.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
    source = Source(origin.model, path, origin.revision)
    try:
        Checkpoint.open(source.path)
    except WeightEditError:
        # Some of it was downloaded, and not all.
        return None
    return source


def file_records(checkpoint: Checkpoint) -> dict[str, FileRecord]:
    """Digest and size of every file of a checkpoint, each read once.

    Raises:
        UsageError: a file cannot be read, or changed since the checkpoint was opened.
    """
    found = {}
    with bar("reading the base", checkpoint.size, unit="bytes") as progress:
        for name in checkpoint.files:
            size = checkpoint.file_size(name)
            with checkpoint.open_file(name) as file:
                found[name] = FileRecord(digest_of(file, size, name), size, "copied")
            progress.advance(size)
    return found


def compared_with_base(pack: Pack, source: Source, checkpoint: Checkpoint) -> BaseVerdict:
    """Whether a checkpoint is the one that a pack's edit was made of, before anything is written.

    By the digests of the base's files, where the pack has them; else by its name on the Hub; else by the files that the
    edit left as they were, which can say that it is another one, and not that it is the same.

    Raises:
        UsageError: a file cannot be read.
    """
    if checkpoint.comes_and_goes:
        return _by_name(pack, source)
    if pack.base is not None:
        return _by_digests(pack.base, checkpoint)
    named = _by_name(pack, source)
    return named if named.same is not None else _by_copies(pack, checkpoint)


def _by_digests(base: Mapping[str, FileRecord], checkpoint: Checkpoint) -> BaseVerdict:
    # Of a base that was edited itself, the manifest is no file of the model.
    base = {name: each for name, each in base.items() if name != MANIFEST}
    there = set(checkpoint.files)
    sizes = {name for name in there & base.keys() if checkpoint.file_size(name) != base[name].size}
    differing = (there ^ base.keys()) | sizes
    if not differing:
        differing = {name for name, found in file_records(checkpoint).items() if found.sha256 != base[name].sha256}
    how = "by the SHA-256 of its files" if not differing else "by its files"
    return BaseVerdict(same=not differing, how=how, differing=tuple(sorted(differing)))


def _by_name(pack: Pack, source: Source) -> BaseVerdict:
    origin = origin_of(pack.manifest, pack.path)
    if origin.on_hub and source.on_hub:
        same = (origin.model, origin.revision) == (source.name, source.revision)
        return BaseVerdict(same=same, how="by its name and commit on the Hub")
    if origin.model in EMBEDDED and source.name in EMBEDDED:
        return BaseVerdict(same=origin.model == source.name, how="by its name")
    return BaseVerdict(same=None, how="the pack does not say what its base's files were")


def _by_copies(pack: Pack, checkpoint: Checkpoint) -> BaseVerdict:
    """By the small files that the edit copied: one that differs, or is not there, tells another base."""
    copied = {name: each for name, each in pack.records.items() if each.origin in ("copied", "linked")}
    kept = pack.manifest.get("base_card")
    if isinstance(kept, str) and kept in copied:
        copied["README.md"] = copied.pop(kept)
    small = {name: each for name, each in copied.items() if name not in checkpoint.headers}
    differing = set()
    for name, known in small.items():
        if name not in checkpoint.files or checkpoint.file_size(name) != known.size:
            differing.add(name)
            continue
        with checkpoint.open_file(name) as file:
            if digest_of(file, known.size, name) != known.sha256:
                differing.add(name)
    if differing:
        return BaseVerdict(same=False, how="by the files that the edit copies", differing=tuple(sorted(differing)))
    return BaseVerdict(same=None, how="the pack does not say what its base's files were")


def default_base(pack: Pack) -> str:
    """The name of a pack's base, where that can be found by its name.

    Raises:
        UsageError: it was a local folder.
    """
    origin = origin_of(pack.manifest, pack.path)
    if not origin.on_hub and origin.model not in EMBEDDED:
        raise UsageError(
            f"{pack.name} is the edit of a local folder '{printable(origin.model)}'; say where it is with `base`",
            option="base",
        )
    return origin.model
