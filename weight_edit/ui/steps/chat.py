"""The sixth step: the edit is tried in a chat, before anything is written."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from weight_edit.errors import WeightEditError
from weight_edit.ui.baked import which_model
from weight_edit.ui.commands import Command, chat_command
from weight_edit.ui.conversation import BAKED, HOOKS, Conversation, example
from weight_edit.ui.frame import Frame, html_update
from weight_edit.ui.late_values import LateValues
from weight_edit.ui.markup import paragraph
from weight_edit.ui.project import Project
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put the chat into the frame."""
    import gradio

    heading(
        "Try it",
        "Both answer what you write: the model as it is, and with the edit. Nothing is written. Tokens are shaded by "
        "how far the model goes along the direction while it says them.",
    )
    conversation = Conversation()
    with gradio.Row():
        way = gradio.Radio(
            label="Beside the model as it is",
            choices=[("the edit as it would be", HOOKS), ("the baked model", BAKED)],
            info="What is chosen in step 5 can be tried before it is baked.",
            elem_id="chat-way",
        )
        frame.field("tried", way)
        strength = gradio.Slider(
            0,
            2,
            step=0.05,
            label="Strength",
            info="Of a find's direction: 1 takes all of it away, 0 nothing. A point of a search has strengths of its "
            "own, which are multiplied by it. Step 7 bakes what is set here.",
            elem_id="strength",
        )
        frame.field("strength", strength, "strength", "edit.strength")
    lacking = gradio.HTML(visible=False, elem_id="chat-lacking")
    frame.show(lacking, lambda project: html_update(paragraph(_command(project).missing, "note")))
    model = gradio.HTML(visible=False, elem_id="what-is-talked-to")
    frame.show(model, lambda project: html_update(_which_model(project)))
    turns = gradio.HTML(elem_id="turns", elem_classes="we-turns")
    prompt = gradio.Textbox(label="Your prompt", lines=2, max_lines=8, elem_id="prompt")
    said = gradio.HTML(visible=False, elem_id="said-chat")
    with gradio.Row(elem_classes="we-buttons"):
        send = gradio.Button("Send", variant="primary", scale=0, min_width=140, elem_id="send")
        stop = gradio.Button("Stop", scale=0, min_width=100, elem_id="stop-chat")
        refused = gradio.Button("A refused prompt", scale=0, min_width=190, elem_id="example-refused")
        ordinary = gradio.Button("An ordinary prompt", scale=0, min_width=200, elem_id="example-ordinary")
        close = gradio.Button("Close the chat", scale=0, min_width=180, elem_id="close-chat")
    written = LateValues({"prompt": prompt})
    count = gradio.State(0)
    command = gradio.Textbox(
        label="The same in a terminal",
        interactive=False,
        buttons=["copy"],
        elem_classes="we-command",
        elem_id="command-chat",
    )
    frame.show(command, lambda project: {"value": str(_command(project)), "visible": not _command(project).missing})

    def reply(name: str, text: str) -> Iterator[list[Any]]:
        """Turns, what is said, the change of the prompt, and the button, as the answers come."""
        quiet, same, begun = gradio.update(**html_update("")), gradio.skip(), False
        try:
            project = frame.project(name)
            for shown in conversation.reply(project, project.settings.tried, text):
                if shown is None:
                    begun = True
                    doing = "Loading the model …" if conversation.session is None else "Answering …"
                    said = gradio.update(**html_update(paragraph(doing, "note")))
                    taken = written.changes({"prompt": text}, {"prompt": ""})
                    yield [same, said, taken, gradio.update(value="Wait …", interactive=False)]
                else:
                    yield [shown, quiet, same, same]
            yield [same, quiet, same, gradio.update(value="Send", interactive=True)]
        except WeightEditError as error:
            # The prompt is there again, to be sent once more, where no other was written meanwhile.
            back = written.changes({"prompt": ""}, {"prompt": text})
            again = [back, gradio.update(value="Send", interactive=True)] if begun else [same, same]
            yield [same, gradio.update(**html_update(frame.wrong(error))), *again]

    def stopped(name: str) -> None:
        with suppress(WeightEditError):
            conversation.stop(frame.project(name))

    def closed(name: str) -> list[Any]:
        with suppress(WeightEditError):
            conversation.close(frame.project(name))
        return ["", gradio.update(**html_update(""))]

    def suggest(field: str) -> Any:
        def suggested(name: str, number: int, text: str) -> list[Any]:
            try:
                spec = getattr(frame.project(name).settings, field)
                # A set may have to be downloaded first.
                found = example(spec, number) if spec else ""
            except WeightEditError as error:
                return [gradio.update(**html_update(frame.wrong(error))), gradio.skip(), number]
            return [gradio.skip(), written.changes({"prompt": text}, {"prompt": found}), number + 7]

        return suggested

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    for event in (send.click, prompt.submit):
        # None is swallowed: a second one is told that the first is still being answered.
        event(
            reply,
            [frame.name, prompt],
            [turns, said, written.carrier, send],
            concurrency_limit=None,
            trigger_mode="multiple",
            **private,
        )
    # What was wrong with another prompt is not so of this one.
    for changed in (prompt.input, way.input, frame.tab.select):
        changed(
            lambda: gradio.skip() if conversation.is_busy else gradio.update(**html_update("")),
            None,
            [said],
            queue=False,
            **private,
        )
    stop.click(stopped, [frame.name], None, queue=False, **private)
    close.click(closed, [frame.name], [turns, said], queue=False, **private)
    example_outputs = [said, written.carrier, count]
    refused.click(suggest("test_refused"), [frame.name, count, prompt], example_outputs, queue=False, **private)
    ordinary.click(suggest("test_answered"), [frame.name, count, prompt], example_outputs, queue=False, **private)


def _which_model(project: Project) -> str:
    return which_model(project, "talked to") if project.settings.tried == BAKED else ""


def _command(project: Project) -> Command:
    tried = project.point if project.settings.way == "search" else project.directions
    return chat_command(project.settings, tried, project.edited)
