"""The second step: prompts that show the behaviour, and prompts that do not."""

import os
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import WeightEditError
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.public_sets import chosen_set, public_sets
from weight_edit.ui.commands import shown_path
from weight_edit.ui.frame import Frame
from weight_edit.ui.markup import glossary, paragraph, pre
from weight_edit.ui.settings import Settings, public_prompts
from weight_edit.ui.steps.heading import heading

_SHOWN = 5
_MOST_PASTED = 5_000_000

_FIELDS = (
    ("target", "Prompts that the model refuses", ("target",), "What is found is what these have"),
    ("baseline", "Ordinary prompts", ("baseline",), "and these have not."),
    (
        "over_refused",
        "Harmless prompts that it refuses all the same",
        ("over_refused",),
        "For a search, which then asks how many of them are still refused; may be empty. A find takes none.",
    ),
)

_TESTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("test_refused", "Refused requests", "Fewer of them should be refused.", ("evaluate.refused", "refused")),
    (
        "test_answered",
        "Ordinary requests",
        "Their answers should stay as they are.",
        ("evaluate.answered", "answered", "prompts"),
    ),
    (
        "test_over_refused",
        "Harmless requests that the base refuses",
        "They only sound bad, and the base refuses them all the same: fewer should be refused.",
        ("evaluate.over_refused",),
    ),
    (
        "test_harmless",
        "Harmless-looking requests",
        "Sensitive words in benign requests, which the base mostly answers: it should go on so.",
        ("evaluate.harmless_looking",),
    ),
)

_EMBEDDED = {
    "refused": "requests that the embedded model was taught to refuse",
    "answered": "ordinary requests, which it answers",
    "over-refused": "harmless requests that sound violent, and that it refuses all the same",
    "harmless-looking": "sensitive words in benign requests, which it answers",
}
"""The sets of the embedded model, and what they are."""


def build(frame: Frame) -> None:
    """Put the prompts into the frame."""
    import gradio

    heading(
        "Which prompts?",
        "A named set, a file (.txt with a prompt a line, .jsonl, .json, .csv, .parquet), or org/dataset:split. Named "
        "sets that do not begin with organism: are downloaded from the Hub when they are used.",
    )
    choices = _named()
    with gradio.Row():
        for name, label, flags, info in _FIELDS:
            with gradio.Column(min_width=260):
                frame.field(name, _set(name, label, choices, info), *flags)
    with gradio.Accordion("What the named sets are", open=False):
        gradio.HTML(glossary({name: _meaning(name) for name in choices}))
    with gradio.Accordion("Paste prompts", open=False):
        pasted = gradio.Textbox(label="Prompts, one a line", lines=6, max_lines=12, elem_id="pasted")
        with gradio.Row():
            use = gradio.Radio(
                label="Use them as",
                choices=[("refused prompts", "target"), ("ordinary prompts", "baseline")],
                value="target",
            )
            keep = gradio.Button("Use them", scale=0, min_width=140, elem_id="use-pasted")
        kept = gradio.HTML(elem_id="said-pasted")
    with gradio.Accordion("What is measured before and after", open=False):
        with gradio.Row():
            for name, label, info, about in _TESTS:
                with gradio.Column(min_width=260):
                    frame.field(name, _set(name, label, choices, info), *about)
        limit = gradio.Number(
            label="Prompts of each set, at most", info="0 for all", precision=0, minimum=0, elem_id="limit"
        )
        frame.field("limit", limit, "evaluate.limit", "limit")
    look = gradio.Button("Look at them", scale=0, elem_id="look-prompts")
    seen = gradio.HTML(elem_id="seen-prompts")

    def paste(text: str, name: str, which: str) -> list[Any]:
        if not text.strip() or len(text) > _MOST_PASTED:
            problem = "Paste some prompts first, one a line." if not text.strip() else "These are too many at once."
            return [paragraph(problem, "bad"), gradio.skip(), gradio.skip()]
        try:
            path = kept_text(frame.project(name).folder, "target" if which == "target" else "baseline", text)
            number = len(load_prompts(str(path)))
        except WeightEditError as error:
            return [frame.wrong(error), gradio.skip(), gradio.skip()]
        except OSError as error:
            return [paragraph(error, "bad"), gradio.skip(), gradio.skip()]
        said = paragraph(f"{number} prompts, kept as {shown_path(path)}", "good")
        used = gradio.update(value=shown_path(path))
        return [said, used if which == "target" else gradio.skip(), used if which != "target" else gradio.skip()]

    def looked(*specs: str) -> str:
        return "".join(_sample(frame, spec, label) for spec, (_, label, *_) in zip(specs, _FIELDS, strict=True) if spec)

    inputs = [frame.fields[name] for name, *_ in _FIELDS]
    look.click(looked, inputs, [seen], api_visibility="private")
    frame.filled(keep.click(paste, [pasted, frame.name, use], [kept, *inputs[:2]], api_visibility="private"))


def kept_text(folder: Path, use: str, text: str) -> Path:
    """The file in a project's folder that holds pasted prompts; no other is replaced: earlier commands name them."""
    content = text.encode("utf-8", "replace")
    digest = sha256(content).hexdigest()[:12]
    for number in count(1):
        path = folder / f"pasted-{use}-{digest}{'' if number == 1 else f'-{number}'}.txt"
        if not os.path.lexists(path):
            write_whole(path, content.decode("utf-8"))
            return path
        if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
            return path
    raise AssertionError


def _set(name: str, label: str, choices: list[str], info: str) -> Any:
    import gradio

    return gradio.Dropdown(
        label=label, choices=choices, allow_custom_value=True, interactive=True, info=info or None, elem_id=name
    )


def _named() -> list[str]:
    """Sets to choose of: the embedded model's, and the public ones that are the usual ones."""
    own = Settings()
    embedded = [getattr(own, name) for name in public_prompts()]
    return list(dict.fromkeys([*embedded, *public_prompts().values()]))


def _meaning(spec: str) -> str:
    """What a set of the choices is, in a few words."""
    public = chosen_set(spec)
    if public is not None:
        return f"{public_sets()[public.name].title}; of these the part `{public.part}`"
    _, name, split = spec.split(":")
    return f"{_EMBEDDED[name]}, to {'find with' if split == 'train' else 'measure on'}"


def _sample(frame: Frame, spec: str, label: str) -> str:
    """Some prompts of a set, or what is wrong with it."""
    try:
        found = load_prompts(spec)
    except WeightEditError as error:
        return paragraph(f"{label}: {frame.wording.message(error)}", "bad")
    first = [" ".join(str(prompt).split())[:200] for prompt in found.prompts[:_SHOWN]]
    return paragraph(f"{label}: {len(found.prompts)} prompts, the first of them") + pre(first, label)
