"""The verb `undo`: the base of an edited checkpoint given back bit for bit, of a pack that was made reversible."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weight_edit.baking.writing import SPARE, WriteOptions, check_is_folder, write_edit
from weight_edit.checkpoint.files import named_files, printable
from weight_edit.checkpoint.manifest import FileRecord, check_folder
from weight_edit.checkpoint.rewrite.output import check_output
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError, VerificationError
from weight_edit.packs.file import Pack, read_pack
from weight_edit.packs.location import local_pack
from weight_edit.packs.way_back import WayBack, lanes
from weight_edit.tables.shown import Shown


@dataclass(frozen=True, kw_only=True)
class UndoResult(Shown):
    """A base that was given back.

    Attributes:
        path: its folder.
        base: what the base was called.
        files: how many; the SHA-256 of each is the base's.
        bytes_total: of all files.
        bytes_restored: of tensors that the edit had changed.
        bytes_pack: of the pack.
        seconds: wall time.
        dry_run: whether nothing was written.
    """

    path: Path
    base: str
    files: int
    bytes_total: int
    bytes_restored: int
    bytes_pack: int
    seconds: float
    dry_run: bool

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        would = "would be " if self.dry_run else ""
        return f"UndoResult({str(self.path)!r}, {self.files} files of {self.base!r} {would}given back)"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "path": str(self.path)}


def undo(
    edited: str | os.PathLike[str],
    pack: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> UndoResult:
    """Give the base of an edited checkpoint back, bit for bit.

    No model is loaded and no code of one is run. What is written is read from the edited checkpoint and the pack alone.

    Args:
        edited: the output of `bake`, `run` or `apply` that the pack is of.
        pack: one that was made with `reversible=True`.
        out: the folder of the base; it appears whole or not at all.
        resume: go on with an undo of the same output that was interrupted.
        dry_run: write nothing, and say what would be written.
        token: Hub access token, for a pack on the Hub.

    Raises:
        UsageError: a pack that is not reversible, damaged, or of another checkpoint.
        VerificationError: a file is not the base's, by its SHA-256; nothing is left.
    """
    folder, target = Path(edited), Path(out)
    check_folder(folder)
    check_is_folder(target)
    check_output(target)
    read = read_pack(local_pack(pack, token=token))
    if read.reversal is None or read.stored is None or read.base is None:
        raise UsageError(
            f"{read.name} was not made reversible, so that it cannot give the base back; make one with "
            "`reversible=True`",
            option="reversible",
        )
    checkpoint = Checkpoint.open(folder)
    with WayBack.open(read, checkpoint) as way:
        _check_sizes(read, checkpoint)
        plan = way.plan()
        needed = SPARE + plan.size
        wanted = {name: each.size for name, each in read.base.items()}
        if {file.name: file.size for file in plan.files} != wanted:
            raise UsageError(f"{read.name}: its files are not those of its base; it is no pack of ours")
        written: RewriteResult | None = None
        if dry_run:
            check_output(target, needed_bytes=needed, source=folder)
        else:
            written = write_edit(
                plan,
                target,
                lambda out, done: _check_base(read, done),
                # Its base had these numbers.
                options=WriteOptions(resume=resume, allow_nonfinite=True),
                needed_bytes=needed,
                source=checkpoint.path,
                job=f" undone by {read.sha256}",
                lanes=lanes(plan),
            )
    source = read.manifest.get("source")
    return UndoResult(
        path=target,
        base=printable(str(source.get("model"))) if isinstance(source, Mapping) else "",
        files=len(plan.files),
        bytes_total=plan.size,
        bytes_restored=plan.bytes_edited,
        bytes_pack=read.path.stat().st_size,
        seconds=0.0 if written is None else written.seconds,
        dry_run=dry_run,
    )


def _check_sizes(pack: Pack, edited: Checkpoint) -> None:
    """Refuse a checkpoint that is plainly not the pack's; all the rest shows in the result.

    Raises:
        UsageError: a weight file is missing or has another size.
    """
    known: Mapping[str, FileRecord] = pack.records
    for shard in edited.shards:
        if shard not in known or known[shard].size != edited.file_size(shard):
            raise UsageError(
                f"{printable(str(edited.path))} is not what {pack.name} is of: {printable(shard)} has another size, or "
                "is not its; give the checkpoint that was packed, or apply the pack first"
            )


def _check_base(pack: Pack, written: RewriteResult) -> None:
    base = pack.base or {}
    wrong = tuple(sorted(name for name, each in written.files.items() if base[name].sha256 != each.sha256))
    if wrong:
        raise VerificationError(
            f"{named_files(wrong)} came out otherwise than in the base, of {len(base)} files; nothing was left: the "
            f"edited checkpoint was changed since, or is not the one that {pack.name} is of"
        )
