"""The third step: what the model is made of, and what a find will cost."""

from weight_edit.ui.commands import inspect_command, plan_command
from weight_edit.ui.figures import inspected, planned
from weight_edit.ui.frame import Frame
from weight_edit.ui.step import Step, verb_of
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put `inspect` and `plan` into the frame."""
    heading(
        "Can it be edited, and what will it cost?",
        "Both read the model's config and the headers of its weights alone. They may be left out.",
    )
    inspect = Step(
        key="inspect",
        start="Inspect the model",
        command=lambda project: inspect_command(project.settings),
        mine=verb_of("inspect"),
        shown=inspected,
    )
    frame.work(inspect)
    plan = Step(
        key="plan",
        start="Estimate the cost",
        command=lambda project: plan_command(project.settings),
        mine=verb_of("plan"),
        shown=planned,
    )
    frame.work(plan)
