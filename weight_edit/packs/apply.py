"""The verb `apply`: packed edits made of a base again, and held to the digests of the published result."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weight_edit.baking.bake import BakeResult, baked, planned
from weight_edit.baking.card.card_and_manifest import README, origin_of, write_card_and_manifest
from weight_edit.baking.prepare import PreparedEdit, prepare
from weight_edit.baking.writing import (
    WriteOptions,
    check_is_folder,
    check_link,
    opened,
    space_needed,
    write_edit,
)
from weight_edit.checkpoint.files import named_files, printable
from weight_edit.checkpoint.manifest import MANIFEST, record
from weight_edit.checkpoint.rewrite.layout import RewritePlan
from weight_edit.checkpoint.rewrite.output import check_output
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.source import Named
from weight_edit.packs.base import BaseVerdict, compared_with_base, default_base
from weight_edit.packs.between import Between
from weight_edit.packs.file import Pack, read_pack
from weight_edit.packs.location import local_pack
from weight_edit.tables.shown import Shown
from weight_edit.version import __version__

_BY_RESULT = "by the SHA-256 of the result"


@dataclass(frozen=True, kw_only=True)
class AppliedPack:
    """One pack as it was applied.

    Attributes:
        name: of its file.
        sha256: of its file.
        base: what it was applied to.
        published: whether the result is the published one, every file by its SHA-256, with its card and manifest; None
            for a dry run, where that is not known yet.
        base_is_same: whether the base is the one that the pack was made of; None where a dry run does not know it.
        told_by: in words, what tells that.
        differing: files of the base of which it is known that they differ.
        edited: the edited checkpoint; for a dry run what it would be.
    """

    name: str
    sha256: str
    base: str
    published: bool | None
    base_is_same: bool | None
    told_by: str
    differing: tuple[str, ...]
    edited: BakeResult

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "pack": self.name,
            "sha256": self.sha256,
            "base": self.base,
            "published": self.published,
            "base_is_same": self.base_is_same,
            "told_by": self.told_by,
            "differing": list(self.differing),
            "edited": self.edited.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class ApplyResult(Shown):
    """The result of applying packs, one after the other.

    Attributes:
        path: the output folder.
        packs: as they were applied, in order.
        dry_run: whether nothing was written; then only the first one is looked at.
    """

    path: Path
    packs: tuple[AppliedPack, ...]
    dry_run: bool

    @property
    def published(self) -> bool | None:
        """Whether the output is the published one of the last pack; None for a dry run."""
        return self.packs[-1].published

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        said = {True: "as published", False: "another result than the published one", None: "nothing was written"}
        packs = ", ".join(repr(each.name) for each in self.packs)
        return f"ApplyResult({str(self.path)!r}, {packs}, {said[self.published]})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "path": str(self.path),
            "published": self.published,
            "dry_run": self.dry_run,
            "packs": [each.to_dict() for each in self.packs],
        }


@dataclass(frozen=True, kw_only=True)
class _How:
    """What is the same for all packs of a call."""

    writing: WriteOptions
    dry_run: bool
    trust_remote_code: bool


def apply(
    packs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    base: Named | None = None,
    overwrite: bool = False,
    resume: bool = False,
    link: bool = False,
    low_disk: bool = False,
    dry_run: bool = False,
    allow_nonfinite: bool = False,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> ApplyResult:
    """Make packed edits of a base, as `bake` would, and compare every file's SHA-256 with the published one.

    On the base that a pack was made of, card and manifest are the published ones too, byte for byte. On another one, a
    fine-tune or another format of it, the edit is made all the same, and card and manifest say that it is another
    result.

    Args:
        packs: one pack, or several that are applied in their order, each to the result of the one before.
        out: the output folder; it appears whole or not at all. Results in between do not stay.
        base: what the first pack is applied to; when None, what it names, if that is on the Hub or embedded. The
            repository that it names is taken at the commit that was edited, unless `revision` is another.
        overwrite, resume, link, low_disk, dry_run, allow_nonfinite, revision, token, trust_remote_code: as in `bake`.

    Raises:
        UsageError: no pack, a damaged one, or a base whose shapes do not fit.
        UnsupportedError: a model or an edit that is not supported.
        VerificationError: the base is the one that the pack was made of, and a file is not the published one; nothing
            is left.
    """
    target = Path(out)
    check_is_folder(target)
    check_output(target, overwrite)
    check_link(link, low_disk)
    names = [packs] if isinstance(packs, str | os.PathLike) else list(packs)
    if not names:
        raise UsageError("no pack is given; give the file that pack wrote")
    read = [read_pack(local_pack(name, token=token)) for name in names]
    named = default_base(read[0]) if base is None else base
    revision = revision or origin_of(read[0].manifest, read[0].path).revision_of(named)
    how = _How(
        writing=WriteOptions(overwrite=overwrite, resume=resume, link=link, allow_nonfinite=allow_nonfinite),
        dry_run=dry_run,
        trust_remote_code=trust_remote_code,
    )
    applied: list[AppliedPack] = []
    with Between.of(target, [] if dry_run else read[:-1], resume=resume) as between:
        for number, pack in enumerate(read[:1] if dry_run else read):
            first, to = number == 0, target if number == between.count else between.folder(number)
            with opened(named, to, low_disk=low_disk and first, revision=revision if first else None, token=token) as (
                source,
                shards,
            ):
                prepared = prepare(source, pack.steps, pack.options, shards=shards, trust_remote_code=trust_remote_code)
                needed = space_needed(prepared.rewrite_plan(), link, shards)
                applied.append(_one(pack, prepared, to=to, needed=needed, how=how, kept=number in between.kept))
            named = to
    return ApplyResult(path=target, packs=tuple(applied), dry_run=dry_run)


def _one(pack: Pack, prepared: PreparedEdit, *, to: Path, needed: int, how: _How, kept: bool) -> AppliedPack:
    """One pack applied to one base.

    Args:
        needed: free space that it takes.
        kept: whether its published result is there already.
    """
    source, plan = prepared.source, prepared.rewrite_plan()
    verdict = BaseVerdict(same=True, how=_BY_RESULT) if kept else compared_with_base(pack, source, prepared.checkpoint)
    if verdict.same:
        _check_names(pack, plan, to)
    said = AppliedPack(
        name=pack.name,
        sha256=pack.sha256,
        base=source.public_name,
        published=True if kept else None,
        base_is_same=verdict.same,
        told_by=verdict.how,
        differing=verdict.differing,
        edited=planned(prepared, plan, to, needed),
    )
    if kept:
        return said
    if how.dry_run:
        check_output(to, how.writing.overwrite, needed_bytes=needed, source=source.path)
        return said
    published = verdict.same is not False

    def finish(folder: Path, written: RewriteResult) -> None:
        if published:
            _check_published(pack, written, verdict)
            write_whole(folder / README, pack.card)
            _check_card(pack, folder)
            write_whole(folder / MANIFEST, pack.manifest_bytes)
        else:
            summary = {**prepared.manifest(written.losses), "pack": _origin(pack)}
            write_card_and_manifest(folder, summary, written.files)

    job = f" pack {pack.sha256}"
    written = write_edit(plan, to, finish, options=how.writing, needed_bytes=needed, source=source.path, job=job)
    return replace(
        said,
        published=published,
        base_is_same=published,
        told_by=verdict.how if verdict.same is not None else _BY_RESULT,
        edited=baked(prepared, plan, to, written),
    )


def _origin(pack: Pack) -> dict[str, Any]:
    """The manifest's account of a pack that was applied to another base than its own."""
    source = pack.manifest["source"]
    return {
        "sha256": pack.sha256,
        "edit_of": str(source["model"]),
        "revision": source.get("revision") if isinstance(source.get("revision"), str) else None,
    }


def _check_names(pack: Pack, plan: RewritePlan, to: Path) -> None:
    """Refuse, before anything is written, a result with other files than the published one.

    Raises:
        VerificationError: naming them.
    """
    wanted = {name: each.size for name, each in pack.records.items() if name != README}
    made = {file.name: file.size for file in plan.files}
    wrong = {name for name in wanted.keys() | made.keys() if wanted.get(name) != made.get(name)}
    if wrong:
        raise _failed(pack, tuple(sorted(wrong)), "would not be", to)


def _check_published(pack: Pack, written: RewriteResult, verdict: BaseVerdict) -> None:
    """Refuse a result that is not the published one.

    Raises:
        VerificationError: naming the files.
    """
    wanted = {name: each.sha256 for name, each in pack.records.items() if name != README}
    made = {name: each.sha256 for name, each in written.files.items()}
    wrong = tuple(sorted(name for name in wanted.keys() | made.keys() if wanted.get(name) != made.get(name)))
    if not wrong:
        return
    unknown = "; or this is another base, which a pack that was made without its base at hand cannot tell"
    unknown = unknown if verdict.same is None else ""
    raise _failed(pack, wrong, "are not", None, unknown)


def _check_card(pack: Pack, folder: Path) -> None:
    known = pack.records.get(README)
    if known is None or record(folder, README, known.origin) != known:
        raise _failed(pack, (README,), "are not", None)


def _failed(pack: Pack, names: tuple[str, ...], verb: str, to: Path | None, more: str = "") -> VerificationError:
    version = pack.manifest.get("weight_edit")
    why = "the pack was changed, or this machine adds up otherwise"
    if version != __version__:
        why = (
            f"the published one was made by weight_edit {printable(str(version), 40)}, and this is {__version__}: "
            "another version may round otherwise"
        )
    where = "" if to is None else f"{printable(str(to))}: "
    return VerificationError(
        f"{where}{named_files(names)} {verb} as published, of {len(pack.records)} files that {pack.name} has digests "
        f"of; nothing was left ({why}{more})"
    )
