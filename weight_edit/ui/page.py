"""The local page: a header with the projects, and a row of steps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.errors import WeightEditError
from weight_edit.ui.commands import shown_path
from weight_edit.ui.frame import Frame
from weight_edit.ui.markup import paragraph
from weight_edit.ui.project import Project, list_projects, new_project, open_project, open_run
from weight_edit.ui.step import Step
from weight_edit.ui.steps import chat, choice, cost, edit, find, model, prompts, publishing, reading, verification

if TYPE_CHECKING:
    from gradio import Blocks, Request
    from gradio.themes import Base

STYLE = Path(__file__).with_name("style.css")

_CONNECTION = Path(__file__).with_name("connection.js")

STEPS = (
    ("Model", model.build),
    ("Prompts", prompts.build),
    ("Check", cost.build),
    ("Find", find.build),
    ("Choose", choice.build),
    ("Try", chat.build),
    ("Bake", edit.build),
    ("Verify", verification.build),
    ("Read", reading.build),
    ("Push", publishing.build),
)
"""The steps of the job, each a function that puts its part into the frame."""

_HEAD = """<header><h1>weight_edit</h1><p>Find the direction that carries a behaviour in a language model, remove it
from the weights, prove what was done.</p></header>"""


def theme() -> "Base":
    """The page's look: the system's own fonts, so that none is fetched, and one colour."""
    from gradio.themes import Base

    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    # Colours that can be read: four and a half to one at least against what is behind them.
    return Base(primary_hue="teal", neutral_hue="slate", font=sans, font_mono=mono, radius_size="sm").set(
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="#ffffff",
        button_large_text_size="1rem",
        button_large_text_weight="500",
        body_text_color_subdued="#4b5768",
        body_text_color_subdued_dark="#b3bdcc",
        block_label_text_color="#334155",
        block_label_text_color_dark="#cbd5e1",
        block_title_text_color="#334155",
        block_title_text_color_dark="#cbd5e1",
        block_info_text_color="#4b5768",
        block_info_text_color_dark="#b3bdcc",
        color_accent="#0f766e",
    )


def script() -> str:
    """The page's own script, as it stands in the head: whether its server is there."""
    return f"<script>{_CONNECTION.read_text('utf-8')}</script>"


def page(folder: Path) -> "Blocks":
    """The page over a folder of projects, not served yet."""
    import gradio

    with gradio.Blocks(title="weight_edit", analytics_enabled=False, fill_width=False) as blocks:
        frame = Frame(folder)
        with gradio.Row(elem_classes="we-head"):
            gradio.HTML(_HEAD)
            chooser = gradio.Dropdown(
                label="Project", choices=[], interactive=True, elem_id="project", scale=0, min_width=260
            )
        with gradio.Accordion("New project, or open a run", open=False, elem_id="projects"):
            with gradio.Row():
                fresh = gradio.Button("New project", scale=0, min_width=160, elem_id="new-project")
                path = gradio.Textbox(
                    label="The folder of a run of the command line", placeholder="runs/organism", elem_id="run-folder"
                )
                taken = gradio.Button("Open the run", scale=0, min_width=160, elem_id="open-run")
            said = gradio.HTML(elem_id="said-open")
        place = gradio.HTML(elem_id="place")
        frame.show(place, lambda project: {"value": paragraph(_place(project), "note")})
        numbers: dict[str, int] = {}
        with gradio.Tabs(overflow_behavior="wrap", elem_id="steps") as tabs:
            for number, (name, build) in enumerate(STEPS, 1):
                with gradio.Tab(f"{number} {name}", id=number, elem_id=f"step-{number}") as tab:
                    first, frame.tab = len(frame.steps), tab
                    build(frame)
                    _mark(frame, tab, f"{number} {name}", first)
                    numbers |= {step.key: number for step in frame.steps[first:]}
                    if number < len(STEPS):
                        onward = gradio.Button(
                            f"Next: {STEPS[number][0]}", elem_id=f"next-{number}", scale=0, elem_classes="we-next"
                        )
                        onward.click(
                            _selecting(number + 1),
                            None,
                            tabs,
                            show_progress="hidden",
                            queue=False,
                            api_visibility="private",
                        )
        frame.wire()
        tabbed = (tabs, lambda project: standing(frame.steps, numbers, project))
        _wire_projects(frame, chooser, said, tabbed, blocks=blocks, fresh=fresh, path=path, taken=taken)
        _keep_what_is_typed(blocks)
    return blocks


def standing(steps: Sequence[Step], numbers: Mapping[str, int], project: Project) -> int:
    """The number of the step that a project stands at: that of the job that was started last.

    Args:
        numbers: of steps, by their keys.
    """
    of_jobs = (numbers[step.key] for job in reversed(project.jobs) for step in steps if step.mine(job))
    # Of a run that was opened, what it found is shown where it would have been baked.
    return next(of_jobs, 1 if project.opened is None else numbers["bake"])


def _place(project: Project) -> str:
    said = f"All files of this project are in {shown_path(project.folder)}; downloads are in the Hub's own cache."
    return said if project.opened is None else f"{said} The run that was opened is in {shown_path(project.opened)}."


def _wire_projects(
    frame: Frame,
    chooser: Any,
    said: Any,
    tabbed: tuple[Any, Callable[[Project], int]],
    *,
    blocks: Any,
    fresh: Any,
    path: Any,
    taken: Any,
) -> None:
    """Connect what opens projects."""
    import gradio

    tabs, standing_at = tabbed
    outputs = [said, chooser, tabs, *frame.everything]
    quick: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}

    def shown(name: object, error: WeightEditError | None = None) -> list[Any]:
        project = open_project(frame.folder, name)
        problem = "" if error is None else frame.wrong(error)
        if name and project.name != name and not problem:
            said = f"There is no project {name}, or it cannot be read: this one was used last."
            problem = paragraph(said, "bad")
        listed = gradio.update(choices=list_projects(frame.folder), value=project.name)
        selected = gradio.Tabs(selected=standing_at(project))
        return [problem, listed, selected, *frame.opened(project)]

    def loaded(request: "Request") -> list[Any]:
        return shown(request.query_params.get("project"))

    def chosen(name: str) -> list[Any]:
        return shown(name)

    def made() -> list[Any]:
        try:
            return shown(new_project(frame.folder).name)
        except WeightEditError as error:
            return shown(None, error)

    def opened(run: str, name: str) -> list[Any]:
        try:
            return shown(open_run(frame.folder, run).name)
        except WeightEditError as error:
            return shown(name, error)

    # Names that are in the signature alone for types are looked up by the library.
    loaded.__annotations__["request"] = gradio.Request
    # Until a project's values have come, what is typed would be overwritten by them.
    opened_first = blocks.load(loaded, None, outputs, **quick)
    opened_first.then(None, js="() => { document.body.classList.add('we-opened'); }", **quick)
    chooser.input(chosen, [chooser], outputs, **quick)
    fresh.click(made, None, outputs, **quick)
    taken.click(opened, [path, frame.name], outputs, **quick)
    path.submit(opened, [path, frame.name], outputs, **quick)


def _keep_what_is_typed(blocks: "Blocks") -> None:
    """Have fields keep what is typed into them as soon as they are there.

    The library takes what is in a step, or is folded, for invisible until it is opened first. It then puts it on the
    page, and a frame later sets each component that it has made visible to what it was, whatever was typed meanwhile.
    A component that was told to be visible is none of those.
    """
    fields = [each for each in blocks.blocks.values() if _is_written_in(each)]
    told = f"() => Array.from({{length: {len(fields)}}}, () => ({{__type__: 'update', visible: true}}))"
    blocks.load(None, None, fields, js=told, show_progress="hidden", queue=False, api_visibility="private")


def _is_written_in(component: Any) -> bool:
    """Whether a component is a field that is there from the start, which a user types into or chooses in."""
    from gradio.components import FormComponent

    is_field = isinstance(component, FormComponent) and component.interactive is not False
    return is_field and component.visible is True


def _selecting(number: int) -> Any:
    import gradio

    return lambda: gradio.Tabs(selected=number)


def _mark(frame: Frame, tab: Any, label: str, first: int) -> None:
    """Have a step's name say how it is with its work."""
    steps = frame.steps[first:]
    if steps:
        frame.show(tab, lambda project: {"label": label + "".join(dict.fromkeys(step.mark(project) for step in steps))})
