"""The eighth step: the edited checkpoint is held to its base."""

from weight_edit.ui.baked import which_model
from weight_edit.ui.commands import verify_command
from weight_edit.ui.figures import certificates
from weight_edit.ui.frame import Frame, html_update
from weight_edit.ui.project import Project
from weight_edit.ui.step import Step, verb_of
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put `verify` into the frame."""
    import gradio

    heading(
        "Verify it",
        "Three checks: nothing but the edited tensors changed; nothing is left of the direction; and the baked model "
        "behaves as the edit did when it was tried.",
    )
    model = gradio.HTML(visible=False, elem_id="what-is-verified")
    frame.show(model, lambda project: html_update(which_model(project, "verified")))
    step = Step(
        key="verify",
        start="Verify",
        command=lambda project: verify_command(project.settings, project.edited),
        mine=verb_of("verify"),
        shown=lambda project, job: certificates(job.result or {}),
    )
    frame.work(step)
    kept = gradio.HTML()
    frame.show(kept, lambda project: html_update(_of_the_run(project)))


def _of_the_run(project: Project) -> str:
    verification = project.run_summary.get("verification")
    if not isinstance(verification, dict) or project.latest("verify") is not None:
        return ""
    return "<h3>By the run itself</h3>" + certificates(verification)
