"""The verb `pack`: an edited checkpoint's edit in one small file, from which it is made anew."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from weight_edit.baking.card.card_and_manifest import README, origin_of
from weight_edit.baking.prepare import prepare
from weight_edit.checkpoint.files import named_files, printable, read_whole
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, FinishedOutput
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.whole_file import check_free
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.source import Named, Source, resolve
from weight_edit.packs.base import base_at_hand, file_records
from weight_edit.packs.file import PackContent, edit_in, is_pack, read_pack, write_pack
from weight_edit.packs.reversal import ReversalRecord
from weight_edit.packs.way_back import WayBack
from weight_edit.tables.shown import Shown

_LONGEST = 16_000_000


@dataclass(frozen=True, kw_only=True)
class PackResult(Shown):
    """A written pack.

    Attributes:
        path: its file.
        size: of the file, in bytes.
        steps: the edit, a line for each step.
        files: how many files of the result it knows the digests of.
        bytes_result: of these files.
        base: what the base is called; None if it was not at hand.
        bytes_base: of the base's files; None likewise.
        reversible: whether `undo` can give the base back.
        bytes_reversal: what that takes of the size.
    """

    path: Path
    size: int
    steps: tuple[str, ...]
    files: int
    bytes_result: int
    base: str | None
    bytes_base: int | None
    reversible: bool
    bytes_reversal: int

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        back = ", gives the base back" if self.reversible else ""
        return f"PackResult({str(self.path)!r}, {self.size} bytes, {'; then '.join(self.steps)}{back})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "path": str(self.path), "steps": list(self.steps)}


def pack(
    edited: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: Named | None = None,
    reversible: bool = False,
    overwrite: bool = False,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> PackResult:
    """Write the edit of an edited checkpoint as one small file, from which `apply` makes the checkpoint anew.

    Args:
        edited: an output of `bake` or `run`; its files must be those of its `weight_edit.json`.
        out: the file, a safetensors file.
        base: what was edited, for the digests of its files; a repository is taken at the commit that was edited. When
            None, what `weight_edit.json` names, if that is an embedded model or in the Hub's cache; nothing is
            downloaded.
        reversible: store also what rounding lost, so that `undo` gives the base back bit for bit. Needs the base.
        overwrite: replace an earlier pack.
        revision, token: of a base on the Hub.
        trust_remote_code: allow the model's own code, which a reversible pack may need to find the edited tensors.

    Raises:
        UsageError: no output of ours, a base that is not its base, or one that is needed and not at hand.
        UnsupportedError: an edit that cannot be packed reversibly.
        VerificationError: the files are not as `weight_edit.json` has them, or it is marked as failed.
    """
    target = Path(out)
    output = FinishedOutput.of(Path(edited))
    check_free(target, overwrite, is_pack)
    _check_place(target, output.folder)
    output.check_unchanged()
    return pack_checked(
        output,
        target,
        base=base,
        reversible=reversible,
        revision=revision,
        token=token,
        trust_remote_code=trust_remote_code,
    )


def pack_checked(
    edited: FinishedOutput,
    target: Path,
    *,
    base: Named | None = None,
    reversible: bool = False,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> PackResult:
    """`pack` of an output whose files were checked, to a place that is free; see there."""
    folder, manifest, records = edited.folder, edited.manifest, edited.records
    steps, options = edit_in(manifest, printable(str(folder / MANIFEST)))
    source = _source(manifest, folder, base, revision=revision, token=token, needed=reversible)
    card = bytes(read_whole(folder / README, _LONGEST))
    with tempfile.TemporaryFile(dir=target.absolute().parent) as spool:
        way_back = None
        if reversible and source is not None:
            base_edit = prepare(source, steps, options, trust_remote_code=trust_remote_code)
            way_back = ReversalRecord(base=base_edit, edited=Checkpoint.open(folder), spool=cast(BinaryIO, spool))
            files: Mapping[str, FileRecord] | None = way_back.record()
        else:
            files = None if source is None else _base_files(source, records)
        content = PackContent(
            manifest=edited.raw,
            card=card,
            steps=steps,
            base=files,
            reversal=None if way_back is None else way_back.document,
        )
        bytes_reversal = spool.tell()
        size = _written(target, content, cast(BinaryIO, spool), way_back)
    return PackResult(
        path=target,
        size=size,
        steps=tuple(step.described for step in steps),
        files=len(records),
        bytes_result=sum(each.size for each in records.values()),
        base=None if source is None else source.public_name,
        bytes_base=None if files is None else sum(each.size for each in files.values()),
        reversible=way_back is not None,
        bytes_reversal=bytes_reversal,
    )


def _check_place(target: Path, folder: Path) -> None:
    """Refuse a place in the edited folder, or in none.

    Raises:
        UsageError: saying which.
    """
    if target.absolute().parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{printable(str(target))} lies in the edited folder, which would then have a file that its {MANIFEST} "
            "does not know; choose another place for the pack",
            option="out",
        )
    if not target.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {printable(str(target.parent))} for the pack; make it first")


def _source(
    manifest: Mapping[str, Any],
    folder: Path,
    base: Named | None,
    *,
    revision: str | None,
    token: str | None,
    needed: bool,
) -> Source | None:
    """The base's files, as the user names them or where they are found; of the repository that was edited, its commit.

    Raises:
        UsageError: another commit of it, or a base that is needed and not found.
    """
    if base is None:
        found = base_at_hand(manifest, folder)
        if found is None and needed:
            raise UsageError(
                "a reversible pack is made with the base at hand, which is neither embedded nor in the Hub's cache; "
                "say where it is with `base`",
                option="base",
            )
        return found
    origin = origin_of(manifest, folder)
    given = resolve(base, revision=revision or origin.revision_of(base), token=token)
    if given.on_hub and given.name == origin.model and origin.revision not in (None, given.revision):
        raise UsageError(
            f"{given.name} at the commit {given.revision} is not what was edited, which was its commit "
            f"{origin.revision}; leave `revision` out",
            option="revision",
        )
    return given


def _written(target: Path, content: PackContent, spool: BinaryIO, way_back: ReversalRecord | None) -> int:
    """Write a pack, and read it again as `apply` and `undo` do before it has its name; its size.

    Raises:
        UnsupportedError: it is beyond the bounds to which packs are read.
        VerificationError: it does not give the base back.
    """
    new = target.with_name(f".{target.name}.new")
    try:
        size = write_pack(new, content, None if way_back is None else spool)
        try:
            read = read_pack(new)
            if way_back is not None:
                with WayBack.open(read, way_back.edited) as way:
                    way.check(way_back.digests)
        except UsageError as error:
            raise UnsupportedError(
                "the edit does not fit into a pack: what was written is refused where it is read, within bounds as "
                f"those of strangers are: {error}"
            ) from error
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return size


def _base_files(source: Source, records: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Digests of the base's files, of which those that the edit copied must be in the result.

    Raises:
        UsageError: it is another model's.
    """
    found = file_records(Checkpoint.open(source.path))
    digests = {each.sha256 for each in found.values()}
    copied = [name for name, each in records.items() if each.origin in ("copied", "linked")]
    strange = tuple(sorted(name for name in copied if records[name].sha256 not in digests))
    if strange:
        raise UsageError(
            f"{printable(source.public_name)} is not what was edited: it has no {named_files(strange)} as the edited "
            "checkpoint has copied it; give its base",
            option="base",
        )
    return found
