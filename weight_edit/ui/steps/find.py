"""The fourth step: a direction is found, or the best edit searched."""

from collections.abc import Callable
from pathlib import Path

from weight_edit.ui.commands import Command, find_command, search_command, shell_line
from weight_edit.ui.figures import found_directions, searched
from weight_edit.ui.frame import Frame
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
        with gradio.Row():
            method = gradio.Dropdown(
                label="Method", choices=list(registered("directions/finders", "finder")), elem_id="method"
            )
            frame.field("method", method, "method")
            most = gradio.Number(
                label="Largest KL divergence, nats",
                info="A candidate that changes ordinary answers more is not taken.",
                elem_id="max-kl",
            )
            frame.field("max_kl", most, "max_kl")
        with gradio.Row():
            confirm = gradio.Number(label="Answers that confirm the choice", precision=0, minimum=0, info="0 for none")
            frame.field("confirm", confirm, "confirm")
            best = gradio.Checkbox(label="Take the nearest candidate where none keeps the bounds")
            frame.field("best_effort", best, "best_effort")
        with gradio.Row():
            for name, label in (
                ("trials", "Trials of a search"),
                ("descents", "Descents"),
                ("judged", "Candidates judged"),
            ):
                with gradio.Column(min_width=160):
                    count = gradio.Number(label=label, precision=0, minimum=0, elem_id=name)
                    frame.field(name, count, name)
            with gradio.Column(min_width=160):
                pick = gradio.Textbox(
                    label="Point that is picked", info="such as refusal<=0.05, or knee", elem_id="pick"
                )
                frame.field("pick", pick, "pick")
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
