"""The ninth step: the card and the report are read."""

from pathlib import Path
from urllib.parse import quote

from weight_edit.ui.commands import report_command, shown_path
from weight_edit.ui.frame import Frame, Update, html_update
from weight_edit.ui.jobs import Job
from weight_edit.ui.markup import facts, paragraph, pre
from weight_edit.ui.project import Project
from weight_edit.ui.report_route import report_of
from weight_edit.ui.step import Step, verb_of
from weight_edit.ui.steps.heading import heading

_MOST = 200_000


def build(frame: Frame) -> None:
    """Put report and card into the frame."""
    import gradio

    heading(
        "Read what it says of itself", "The report is one file, which opens anywhere. The card goes with the model."
    )
    other = gradio.HTML(visible=False, elem_id="report-of-another")
    frame.show(other, lambda project: html_update(paragraph(_of_another(project), "bad")))
    step = Step(
        key="report",
        start="Make the report",
        command=lambda project: report_command(project.run, project.next_out("report")),
        mine=verb_of("report"),
        shown=_made,
        secret=False,
    )
    frame.work(step)
    shown = gradio.HTML(elem_id="report")
    frame.show(shown, lambda project: html_update(_report(project)))
    with gradio.Accordion("The card", open=False, visible=False, elem_id="card") as card:
        content = gradio.HTML()
    frame.show(card, _has_card)
    frame.show(content, lambda project: {"value": _card(project)})


def _of_another(project: Project) -> str:
    """That the report is not of the model that was made last, where it is not; the card always is."""
    if project.run is None or project.edited is None or project.edited.is_relative_to(project.run):
        return ""
    run, edited = shown_path(project.run), shown_path(project.edited)
    return f"A report is of what was measured last, {run}. The model that was made last is {edited}: the card is its."


def _made(project: Project, job: Job) -> str:
    return facts({"report": job.out}) if job.out is not None else ""


def _report(project: Project) -> str:
    """The report in a frame of its own, without an origin; empty where there is none."""
    job = next((each for each in reversed(project.jobs) if report_of(each) is not None), None)
    if job is None:
        return ""
    address = f"/report/{quote(project.name, safe='')}/{quote(job.name, safe='')}"
    return (
        f'<p><a href="{address}" target="_blank" rel="noopener">Open the report in a tab of its own</a></p>'
        f'<iframe class="we-report" title="The report" sandbox="allow-scripts" src="{address}"></iframe>'
    )


def _card_file(project: Project) -> Path | None:
    path = None if project.edited is None else project.edited / "README.md"
    return path if path is not None and path.is_file() and not path.is_symlink() else None


def _has_card(project: Project) -> Update:
    return {"visible": _card_file(project) is not None}


def _card(project: Project) -> str:
    path = _card_file(project)
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST).decode("utf-8", "replace")
    except OSError as error:
        return paragraph(f"the card cannot be read: {error.strerror}", "bad")
    # As it stands: what others wrote there is shown, and not obeyed.
    return pre(content.splitlines(), "The card")
