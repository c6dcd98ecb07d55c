"""The writing of a prepared edit: the source opened, room looked for, files written, the last ones by who asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.gguf.header import is_gguf
from weight_edit.checkpoint.rewrite.layout import RewritePlan
from weight_edit.checkpoint.rewrite.output import attempted
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult, write_checkpoint
from weight_edit.errors import UsageError
from weight_edit.hub.low_disk import LowDiskSource
from weight_edit.hub.source import Named, Source, resolve

SPARE = 1_000_000
"""Bytes reserved for the card and the manifest in the check of free space."""

Finish = Callable[[Path, RewriteResult], None]
"""Called with the folder and what was written, before the output is in its place: it writes card and manifest."""


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How an edited checkpoint is written, whatever it is.

    Attributes:
        overwrite, resume, link, allow_nonfinite: as in `bake`.
    """

    overwrite: bool = False
    resume: bool = False
    link: bool = False
    allow_nonfinite: bool = False


def check_is_folder(out: Path) -> None:
    """Refuse an output that is named like a GGUF file.

    Raises:
        UsageError: it is.
    """
    if is_gguf(out.name):
        raise UsageError(
            f"the output is a folder, and {printable(str(out))} is the name of a file; give a folder, in which the "
            "edited GGUF file has its own name"
        )


@contextmanager
def opened(
    model: Named, out: Path, *, low_disk: bool, revision: str | None, token: str | None
) -> Iterator[tuple[Source, LowDiskSource | None]]:
    """A model's files; with `low_disk` its small ones, and who brings its shards into a folder beside the output.

    Raises:
        UsageError, UnsupportedError: as `resolve` and `LowDiskSource.open`.
    """
    if not low_disk:
        yield resolve(model, revision=revision, token=token), None
        return
    folder = out.absolute().with_name(f".{out.absolute().name}.download")
    with LowDiskSource.open(model, folder, revision=revision, token=token) as shards:
        yield shards.source, shards


def check_link(link: bool, low_disk: bool) -> None:
    """Refuse links to what is deleted again.

    Raises:
        UsageError: both were asked for.
    """
    if link and low_disk:
        raise UsageError(
            "with `low_disk=True` every shard is a download that goes again, so that there is nothing to link: leave "
            "`link=True` out",
            option=("low_disk", "link"),
        )


def space_needed(plan: RewritePlan, link: bool, shards: LowDiskSource | None) -> int:
    """The bytes of disk that a plan's output and the largest download take."""
    needed = SPARE + sum(file.size for file in plan.files if not link or file.copy_of is None)
    return needed + (0 if shards is None else max(shards.sizes.values()))


def write_edit(
    plan: RewritePlan,
    out: Path,
    finish: Finish,
    *,
    options: WriteOptions,
    needed_bytes: int,
    source: Path,
    job: str = "",
    lanes: int | None = None,
) -> RewriteResult:
    """Write a plan's files, and what `finish` adds to them; the output appears whole or not at all.

    Args:
        needed_bytes: free space that is looked for.
        source: what is read, which the output must not overlap.
        job: what the output depends on beside the plan.
        lanes: as in `write_checkpoint`.

    Raises:
        UsageError: as `attempted` and `write_checkpoint`.
    """
    # Files that an earlier attempt linked are no copies, and the other way round; what it copied with leave is not
    # copied without.
    key = plan.key + " linked" * options.link + " with numbers that are not finite" * options.allow_nonfinite + job
    with attempted(
        out,
        overwrite=options.overwrite,
        needed_bytes=needed_bytes,
        source=source,
        key=key,
        resume=options.resume,
    ) as attempt:
        written = write_checkpoint(
            plan,
            attempt.files,
            finished=attempt.finished,
            begun=attempt.begun,
            losses=attempt.losses,
            done=attempt.note,
            note_begun=attempt.note_begun,
            linked=options.link,
            lanes=lanes,
            allow_nonfinite=options.allow_nonfinite,
        )
        finish(attempt.files, written)
    return written
