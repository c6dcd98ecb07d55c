"""A step of the page: its command, its jobs, and what is shown of them."""

from collections.abc import Callable
from dataclasses import dataclass

from weight_edit.ui.commands import Command
from weight_edit.ui.job_log import JobLog, LoggedStep
from weight_edit.ui.jobs import Job
from weight_edit.ui.markup import bar, number, paragraph, table
from weight_edit.ui.project import Project
from weight_edit.utils.progress import duration


@dataclass(frozen=True, kw_only=True)
class Step:
    """Work that a button starts.

    Attributes:
        key: a word for it, unique on the page.
        start: what the button says.
        command: the command for a project as it is now.
        mine: whether a job is one of this step's.
        shown: HTML of a job that is done.
        secret: whether it may need an access token.
        counted: whether the step's name says that it is done.
    """

    key: str
    start: str
    command: Callable[[Project], Command]
    mine: Callable[[Job], bool]
    shown: Callable[[Project, Job], str]
    secret: bool = True
    counted: bool = True

    def job(self, project: Project) -> Job | None:
        """The job that was started last."""
        return next((job for job in reversed(project.jobs) if self.mine(job)), None)

    def status(self, project: Project) -> str:
        """HTML of how it is with the job that was started last."""
        job = self.job(project)
        if job is None:
            return ""
        if job.state == "running":
            return _running(job)
        took = f"in {duration(job.seconds)}"
        if job.state == "failed":
            return paragraph(f"It stopped after {duration(job.seconds)}: {job.error}", "bad")
        if job.state == "stopped":
            return paragraph(f"Stopped after {duration(job.seconds)}. What was done is kept where it can be.", "note")
        if job.state == "lost":
            return paragraph(f"No result: {job.error}", "bad")
        return paragraph(f"Done {took}.", "good") + self.shown(project, job)

    def mark(self, project: Project) -> str:
        """A sign for the step's name: at work, done, or failed."""
        job = self.job(project)
        done = " ✓" if self.counted else ""
        return "" if job is None else {"running": "…", "done": done, "stopped": ""}.get(job.state, " !")


def verb_of(*verbs: str) -> Callable[[Job], bool]:
    """Whether a job is of one of these verbs."""
    return lambda job: job.verb in verbs


def _took(step: LoggedStep) -> str:
    return "" if step.seconds is None else duration(step.seconds)


def _figures(step: LoggedStep) -> str:
    """A step's figures in a few words."""
    shown = []
    for name, value in step.figures.items():
        words = number(value) if isinstance(value, float) else str(value)
        shown.append(f"{name.replace('_', ' ')} {words}")
    return ", ".join(shown)


def _front_so_far(log: JobLog) -> str:
    """The points of a search's front, and whether their refusals are rates or scores; empty where there is none."""
    if not log.front:
        return ""
    points = ", ".join(f"{refusal:.2f} at {damage:.2g}" for refusal, damage in log.front)
    if log.front_judged:
        return paragraph(f"The front so far, judged refusal rate at damage in nats per token: {points}")
    said = (
        "The score tells which edits are better. It is no share of refused prompts: rates come when answers are judged."
    )
    return paragraph(f"The front so far, cheap score at damage in nats per token: {points}") + paragraph(said, "note")


def _running(job: Job) -> str:
    progress = job.log.progress
    last = job.log.lines[-1] if job.log.lines else "starting"
    said = str(progress) if progress is not None else last
    rows = [(step.name, step.state, _took(step), _figures(step)) for step in job.log.steps]
    steps = table(("step", "state", "time", "figures so far"), rows, "Steps") if rows else ""
    steps += _front_so_far(job.log)
    if job.is_stopping:
        steps += paragraph("Stopping: what is done is kept where it can be. This takes a moment.", "note")
    share = None if progress is None else progress.share
    return steps + bar(share, "Progress") + paragraph(f"{said} · {duration(job.seconds)} so far", "note")
