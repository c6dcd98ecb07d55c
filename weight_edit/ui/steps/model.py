"""The first step: the model that is edited."""

from collections.abc import Iterator
from typing import Any

from weight_edit.organism.embedded import EMBEDDED
from weight_edit.runtime.dtypes import DTYPES
from weight_edit.ui.frame import Frame
from weight_edit.ui.hub_search import search_hub
from weight_edit.ui.markup import paragraph
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put the choice of a model into the frame."""
    import gradio

    heading(
        "Which model?",
        "A model's name on the Hub, a folder on this machine, or a .gguf file. `organism` is a small model that comes "
        "with weight_edit: with it the whole job takes some minutes, and nothing is downloaded.",
    )
    model = gradio.Dropdown(
        label="Model",
        choices=list(EMBEDDED),
        allow_custom_value=True,
        interactive=True,
        elem_id="model",
        info="Choose, or type a name or a path.",
    )
    frame.field("model", model, "model", "name", "repo")
    frame.field("shown_for", gradio.Textbox(visible=False))
    with gradio.Accordion("Search the Hub", open=False):
        with gradio.Row():
            words = gradio.Textbox(label="Words in the model's name", placeholder="qwen instruct", elem_id="hub-words")
            ask = gradio.Button("Search", scale=0, min_width=120, elem_id="hub-search")
        said = gradio.HTML(elem_id="hub-said")
        found = gradio.Radio(label="Models", choices=[], visible=False, elem_id="hub-found")
    with gradio.Accordion("Device, numbers and access", open=False):
        with gradio.Row():
            dtype = gradio.Dropdown(label="Numbers", choices=list(DTYPES), info="auto is what the model stores")
            frame.field("dtype", dtype, "dtype")
            device = gradio.Textbox(label="Device", placeholder="chosen by itself", info="cpu, cuda, mps")
            frame.field("device", device, "device")
        frame.token = gradio.Textbox(
            label="Hub token",
            type="password",
            info="For gated models, and for step 10, Push. It is handed to the commands that you start, and kept "
            "nowhere. Empty: who is logged in on this machine (hf auth login).",
            elem_id="token",
        )

    frame.name_field("token", frame.token)

    def asked(query: str, token: str) -> Iterator[list[Any]]:
        yield [paragraph("Asking the Hub …", "note"), gradio.update(choices=[], value=None, visible=False)]
        names, problem = search_hub(query, token)
        shown = paragraph(problem, "bad") if problem else paragraph(f"{len(names)} models, choose one", "note")
        yield [shown, gradio.update(choices=names, value=None, visible=bool(names))]

    quick: dict[str, Any] = {"api_visibility": "private"}
    ask.click(asked, [words, frame.token], [said, found], **quick)
    words.submit(asked, [words, frame.token], [said, found], **quick)
    frame.filled(found.input(lambda name: name, [found], [model], **quick))
