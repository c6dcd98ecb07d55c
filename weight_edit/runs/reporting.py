"""The report behind a run or a search: made where it can be, and a line about why it was not."""

import json
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.rewrite.ownership import REPORT
from weight_edit.errors import WeightEditError, first_line
from weight_edit.report.report import PAGE, report_runs
from weight_edit.runs.folder import RunFolder
from weight_edit.utils.progress import announce


def report_of_run(folder: RunFolder) -> Path | None:
    """The page of a run that is done, made again where its figures have changed; None where there is none.

    A run that is done stays so: what goes wrong here is told in a line, and in the run's log.
    """
    summary = {name: value for name, value in folder.state["summary"].items() if name not in ("seconds", "push")}

    def work() -> dict[str, Any]:
        written = report_runs(folder.path, folder.path / REPORT, overwrite=True)
        return {"figures": len(written.figures), "size": written.size}

    try:
        folder.step("report", json.loads(json.dumps(summary, default=str)), (REPORT,), work)
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the page, hours of work are done)
        folder.log(_missing(error))
        announce(_missing(error))
        return None
    return folder.path / REPORT / PAGE


def report_of_search(folder: Path) -> Path | None:
    """The page of a search that is done; None where there is none, which is told in a line."""
    try:
        return report_runs(folder, folder / REPORT, overwrite=True).path
    except Exception as error:  # noqa: BLE001 (as above)
        announce(_missing(error))
        return None


def _missing(error: BaseException) -> str:
    return f"no report was made: {error if isinstance(error, WeightEditError) else first_line(error)}"
