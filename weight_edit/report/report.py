"""The report of runs: one page and its pictures, made of what their folders keep."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.rewrite.output import staged
from weight_edit.checkpoint.rewrite.ownership import REPORT, REPORT_RECORD, check_report, written
from weight_edit.errors import UsageError
from weight_edit.report.contents import page_of
from weight_edit.report.figure_files import write_figures
from weight_edit.report.page import html
from weight_edit.report.run_record import RunRecord
from weight_edit.tables.shown import Shown
from weight_edit.utils.extras import need
from weight_edit.version import __version__

PAGE = "report.html"


@dataclass(frozen=True)
class ReportResult(Shown):
    """A report that was written.

    Attributes:
        path: the page.
        size: of the page, in bytes.
        figures: the files of its pictures, SVG and PNG.
    """

    path: Path
    size: int
    figures: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"ReportResult({str(self.path)!r}, {self.size} bytes, {len(self.figures)} files of pictures)"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"path": str(self.path), "size": self.size, "figures": [str(each) for each in self.figures]}


def report_runs(
    runs: str | Path | Sequence[str | Path], out: str | Path | None = None, *, overwrite: bool = False
) -> ReportResult:
    """Write the report of a run, or of several beside one another.

    The page is one file that loads nothing; beside it, in `figures`, its pictures lie as SVG and PNG. It is made of
    what the folders keep alone: no model is read, and nothing is measured anew; only pairs of runs are compared here.

    Args:
        runs: the folders of `run`, or of `search`.
        out: the folder of the report; `report` in the run's own folder by default, of several it has to be given.
        overwrite: replace an earlier report there.

    Raises:
        UsageError: there is no run in a folder; `out` is missing, or holds something that is not ours; the library of
            the pictures is not installed.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(each) for each in runs]
    if not folders:
        raise UsageError("give the folder of a run")
    need("vl_convert", "a report")
    if out is None and len(folders) > 1:
        raise UsageError("of several runs, say where the report is to lie: `out`", option="out")
    place = folders[0] / REPORT if out is None else Path(out)
    records = [RunRecord.read(each) for each in folders]
    with staged(place, overwrite=overwrite, own=check_report) as folder:
        page = page_of(records)
        (folder / PAGE).write_text(html(page), encoding="utf-8")
        names = [PAGE, *write_figures(folder, page.figures)]
        files = {name: asdict(written(folder / name)) for name in names}
        record = {"weight_edit": __version__, "files": files}
        (folder / REPORT_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return ReportResult(place / PAGE, (place / PAGE).stat().st_size, tuple(place / name for name in names[1:]))
