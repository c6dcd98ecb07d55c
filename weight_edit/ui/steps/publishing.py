"""The last step: the edited model is uploaded, after a look at what would be."""

from weight_edit.ui.baked import which_model
from weight_edit.ui.commands import Command, is_dry, push_command, shell_line
from weight_edit.ui.figures import pushed
from weight_edit.ui.frame import Frame, Update, html_update
from weight_edit.ui.project import Project
from weight_edit.ui.step import Step
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put `push` into the frame: dry first, then for real."""
    import gradio

    heading(
        "Push it to the Hub",
        "First a dry run, which verifies the model and lists what would be sent. Nothing leaves this machine by it. "
        "Who downloads the model gets one that refuses less; its card says so, and what was measured.",
        "The Hub token is the one of step 1, Model, under “Device, numbers and access”; without one, who is logged in "
        "on this machine (`hf auth login`) pushes.",
    )
    model = gradio.HTML(visible=False, elem_id="what-is-pushed")
    frame.show(model, lambda project: html_update(which_model(project, "pushed")))
    with gradio.Row():
        repo = gradio.Textbox(label="Repository", placeholder="your-name/your-model", elem_id="repo")
        frame.field("repo", repo, "repo_id", "repo", "REPO_ID")
        private = gradio.Checkbox(label="Private", elem_id="private")
        frame.field("private", private, "private")
    dry = Step(
        key="dry-run",
        start="Dry run: send nothing",
        command=lambda project: push_command(project.settings, project.edited, dry=True),
        mine=lambda job: job.verb == "push" and is_dry(job.words),
        shown=pushed,
        counted=False,
    )
    frame.work(dry)
    with gradio.Column(visible=False) as real:
        heading("Send it", "This uploads the model under the name above.")
        push = Step(
            key="push",
            start="Push to the Hub",
            command=_push,
            mine=lambda job: job.verb == "push" and not is_dry(job.words),
            shown=pushed,
        )
        frame.work(push)
    frame.show(real, lambda project: _allowed(dry, project))


def _push(project: Project) -> Command:
    """The upload; only what a dry run has gone through with the same words is sent."""
    real = push_command(project.settings, project.edited, dry=False)
    tried = push_command(project.settings, project.edited, dry=True)
    if real.missing or _tried(project, tried):
        return real
    return Command(words=real.words, missing="Make a dry run with these settings first.")


def _tried(project: Project, command: Command) -> bool:
    """Whether this dry run was done."""
    return any(job.state == "done" and shell_line(job.words) == str(command) for job in project.jobs)


def _allowed(dry: Step, project: Project) -> Update:
    return {"visible": _tried(project, dry.command(project))}
