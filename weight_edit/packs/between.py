"""The results in between when packs are applied one after the other: folders beside the output, which do not stay."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from weight_edit.checkpoint.files import list_files, printable, read_whole
from weight_edit.checkpoint.manifest import MANIFEST
from weight_edit.checkpoint.rewrite.output import absolute, remove_own
from weight_edit.checkpoint.rewrite.ownership import check_own
from weight_edit.errors import UsageError
from weight_edit.packs.file import Pack
from weight_edit.utils.progress import announce


@dataclass(frozen=True)
class Between:
    """Folders for results in between, one for each pack but the last; a context.

    At its end they are removed, but after Ctrl-C or SIGTERM, for `resume`. What a killed process left has the same
    names, so that the next one finds it: it is removed, or with `resume` gone on from where it is what it must be.

    Attributes:
        out: the output.
        count: how many there are.
        kept: those that are there already.
    """

    out: Path
    count: int
    kept: frozenset[int]

    @classmethod
    def of(cls, out: Path, packs: Sequence[Pack], *, resume: bool) -> "Between":
        """Those beside an output.

        Args:
            packs: whose results they are: all but the last one's.
            resume: keep what is left of an earlier call where it is a pack's published result.

        Raises:
            UsageError: something that is not ours has such a name.
        """
        out = absolute(out)
        found = cls(out, len(packs), frozenset())
        kept = set()
        for number, pack in enumerate(packs):
            folder = found.folder(number)
            if not os.path.lexists(folder):
                continue
            if resume and not folder.is_symlink() and _is_result(folder, pack):
                kept.add(number)
                continue
            announce(f"removing what an interrupted attempt at {printable(str(out))} left")
            found._remove(number)
        return cls(out, len(packs), frozenset(kept))

    def folder(self, number: int) -> Path:
        """The folder of one result."""
        return self.out.with_name(f".{self.out.name}.between-{number + 1}")

    def __enter__(self) -> "Between":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return
        for number in range(self.count):
            if error is None:
                self._remove(number)
            else:
                with suppress(UsageError):
                    self._remove(number)

    def _remove(self, number: int) -> None:
        folder = self.folder(number)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{printable(str(folder))} is in the way and not ours; remove it")
        remove_own(folder)


def _is_result(folder: Path, pack: Pack) -> bool:
    """Whether a folder is a pack's published result, file by file."""
    try:
        if bytes(read_whole(folder / MANIFEST)) != pack.manifest_bytes:
            return False
        check_own(folder)
        files = set(list_files(folder)[0]) - {MANIFEST}
    except UsageError:
        return False
    return files == pack.records.keys()
