"""The report of a project's run as a page of its own, which cannot reach the page around it."""

from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.ui.jobs import Job
from weight_edit.ui.project import list_projects, read_project

if TYPE_CHECKING:
    from fastapi import FastAPI, Response

_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""A report of others may say anything: it runs without an origin, and loads nothing."""

_REPORT = "report.html"
_MOST = 50_000_000


def report_file(folder: Path, name: str, job: str) -> Path | None:
    """The report that a job of a project wrote; None where there is none.

    Args:
        folder: with all projects.
        name, job: of the project and its job, from a browser, so that they may be anything.
    """
    project = read_project(folder / name) if name in list_projects(folder) else None
    if project is None:
        return None
    made = next((each for each in project.jobs if each.name == job), None)
    return None if made is None else report_of(made)


def report_of(job: Job) -> Path | None:
    """The report that a job wrote, as `report` or as the last step of a run; None where there is none."""
    if job.out is None or job.verb not in ("report", "run"):
        return None
    path = job.out / _REPORT if job.verb == "report" else job.out / "report" / _REPORT
    return path if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST else None


def add_report(app: "FastAPI", folder: Path) -> None:
    """Serve reports of the projects in a folder, at /report/PROJECT/JOB."""
    from fastapi.responses import HTMLResponse, PlainTextResponse

    def report(project: str, job: str) -> "Response":
        path = report_file(folder, project, job)
        if path is None:
            return PlainTextResponse("there is no report", status_code=404)
        headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
        return HTMLResponse(path.read_text("utf-8", "replace"), headers=headers)

    app.add_api_route("/report/{project}/{job}", report, methods=["GET"], response_model=None)
