"""The sixth step: the edit is tried in a chat, before anything is written."""

import shlex

from weight_edit.ui.commands import shown_path
from weight_edit.ui.frame import Frame
from weight_edit.ui.project import Project
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put the chat into the frame."""
    import gradio

    heading("Try it", "Talk to the model with the edit as hooks: nothing is written.")
    command = gradio.Textbox(
        label="The same in a terminal",
        interactive=False,
        buttons=["copy"],
        elem_classes="we-command",
        elem_id="command-chat",
    )
    frame.show(command, lambda project: {"value": _command(project)})


def _command(project: Project) -> str:
    found = [] if project.directions is None else ["--directions", shown_path(project.directions)]
    return shlex.join(["weight-edit", "chat", project.settings.model, *found])
