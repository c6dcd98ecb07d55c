"""The fourth step: a direction is found, or the best edit searched."""

from collections.abc import Callable
from pathlib import Path

from weight_edit.ui.commands import Command, find_command, search_command, shell_line
from weight_edit.ui.figures import found_directions, searched
from weight_edit.ui.frame import Frame
from weight_edit.ui.markup import glossary
from weight_edit.ui.project import Project
from weight_edit.ui.step import Step, verb_of
from weight_edit.ui.steps.heading import heading
from weight_edit.utils.registry_listing import registered


def build(frame: Frame) -> None:
    """Put `find` and `search` into the frame."""
    import gradio

    heading(
        "Find the direction, or search the best edit",
        "A find takes the one direction that the refused prompts have and the ordinary ones have not. A search takes "
        "longer: it tries many strengths, and shows what each costs.",
    )
    way = gradio.Radio(
        label="How", choices=[("Find one direction", "find"), ("Search the best edit", "search")], elem_id="way"
    )
    frame.field("way", way)
    with gradio.Accordion("Settings", open=False):
        known = registered("directions/finders", "finder")
        method = gradio.Dropdown(
            label="Method",
            choices=list(known),
            info="How directions are computed from the prompts; mean-difference is the usual one.",
            elem_id="method",
        )
        frame.field("method", method, "method")
        with gradio.Column(elem_id="of-find") as for_find:
            _of_a_find(frame)
        with gradio.Column(visible=False, elem_id="of-search") as for_search:
            _of_a_search(frame)
        with gradio.Accordion("What the methods are", open=False):
            gradio.HTML(glossary({name: each.summary for name, each in known.items()}))
    frame.show(for_find, lambda project: {"visible": not _searches(project)})
    frame.show(for_search, lambda project: {"visible": _searches(project)})
    with gradio.Column() as finding:
        find = Step(
            key="find",
            start="Find",
            command=lambda project: _begun_or_resumed(project, find_command, project.next_out("find", ".safetensors")),
            mine=verb_of("find"),
            shown=found_directions,
        )
        frame.work(find)
    with gradio.Column(visible=False) as searching:
        search = Step(
            key="search",
            start="Search",
            command=lambda project: _begun_or_resumed(project, search_command, project.next_out("search")),
            mine=verb_of("search"),
            shown=searched,
        )
        frame.work(search)
    frame.show(finding, lambda project: {"visible": not _searches(project)})
    frame.show(searching, lambda project: {"visible": _searches(project)})


def _of_a_find(frame: Frame) -> None:
    import gradio

    with gradio.Row():
        most = gradio.Number(
            label="Largest KL divergence, nats",
            info="How far a candidate may change the answers to ordinary prompts; 0 is not at all. Those that change "
            "more are not taken.",
            elem_id="max-kl",
        )
        frame.field("max_kl", most, "max_kl")
        confirm = gradio.Number(
            label="Answers that confirm the choice",
            info="Refused prompts that the model answers under the chosen direction before it is written: 16 is a "
            "good number, 0 is none.",
            precision=0,
            minimum=0,
        )
        frame.field("confirm", confirm, "confirm")
    best = gradio.Checkbox(
        label="Take the nearest candidate where none keeps the bounds", info="Else nothing is written then."
    )
    frame.field("best_effort", best, "best_effort")


_COUNTS = (
    ("trials", "Trials of a search", "Strengths that are tried by a sampler; more find better ones, and take longer."),
    ("descents", "Descents", "Improvements by gradient, each of the same time; 0 for none."),
    ("judged", "Candidates judged", "Of the best, how many answer prompts and are judged by that; at least 8."),
)


def _of_a_search(frame: Frame) -> None:
    import gradio

    with gradio.Row():
        for name, label, info in _COUNTS:
            with gradio.Column(min_width=160):
                count = gradio.Number(label=label, info=info, precision=0, minimum=0, elem_id=name)
                frame.field(name, count, name)
    pick = gradio.Textbox(
        label="Point that is picked",
        info="refusal<=0.05 is the least damage where at most a twentieth is still refused; damage<=0.02 the least "
        "refusal at so many nats per token; knee where more of one begins to cost much of the other.",
        elem_id="pick",
    )
    frame.field("pick", pick, "pick")


def _begun_or_resumed(project: Project, make: Callable[..., Command], out: Path) -> Command:
    """The command of a find or a search; where one of the same words was stopped, it goes on with what that kept."""
    begun = make(project.settings, out)
    job = project.latest(begun.verb)
    if job is None or job.out is None or job.state not in ("stopped", "lost"):
        return begun
    kept = job.out if begun.verb == "search" else job.out.with_name(f"{job.out.name}.find")
    resumed = make(project.settings, job.out, resumed=True)
    same = shell_line(job.words) in (str(make(project.settings, job.out)), str(resumed))
    return resumed if same and kept.is_dir() and any(kept.iterdir()) else begun


def _searches(project: Project) -> bool:
    return project.settings.way == "search"
