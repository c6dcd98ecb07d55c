"""The seventh step: the edited checkpoint is written."""

from dataclasses import replace

from weight_edit.ui.commands import Command, bake_command, point_command, run_command, shown_path
from weight_edit.ui.figures import run_figures
from weight_edit.ui.frame import Frame, html_update
from weight_edit.ui.jobs import Job
from weight_edit.ui.markup import facts, paragraph, size
from weight_edit.ui.opened_run import left_out, read_recipe, read_summary
from weight_edit.ui.project import Project, edit_problem
from weight_edit.ui.step import Step, verb_of
from weight_edit.ui.steps.heading import heading


def build(frame: Frame) -> None:
    """Put `run` and `bake` into the frame."""
    import gradio

    heading(
        "Bake the edit into the weights",
        "Only the tensors that the edit changes are written anew; every other byte is the model's own. The result "
        "refuses less than the model it is made of, which is what was asked for: measure it before you pass it on.",
    )
    measured = gradio.Checkbox(
        label="Measure before and after (for the report and the card)",
        info="Without it the checkpoint is written in the time of a copy, and nothing is known of its answers.",
        elem_id="measured",
    )
    frame.field("measured", measured)
    baked = gradio.HTML(elem_id="what-is-baked")
    frame.show(baked, lambda project: html_update(what_is_baked(project)))
    step = Step(key="bake", start="Bake", command=edit_command, mine=verb_of("bake", "run"), shown=_shown)
    frame.work(step)
    opened = gradio.HTML()
    frame.show(opened, lambda project: html_update(_opened(project)))


def edit_command(project: Project) -> Command:
    """The command that bakes the edit as it is chosen."""
    settings, out = project.settings, project.next_out("run")
    if settings.way == "search":
        return point_command(settings, project.point, project.folder, out)
    problem = edit_problem(project) if project.directions is not None else ""
    if problem:
        return replace(_edit(project), missing=problem)
    return _edit(project)


def _edit(project: Project) -> Command:
    settings, out = project.settings, project.next_out("run")
    if settings.measured:
        return run_command(settings, project.directions, project.folder, out)
    return bake_command(settings, project.directions, project.next_out("model"))


def what_is_baked(project: Project) -> str:
    """What the button would bake, in a few facts; empty where there is nothing yet."""
    settings = project.settings
    if settings.way == "search":
        if project.point is None or project.search is None:
            return ""
        digests, picked = [point.get("digest") for point in project.front], project.picked
        place = f"{digests.index(picked) + 1} of {len(digests)}" if picked in digests else picked
        own = "picked by the search's rule" if project.picked != settings.point else "chosen in step 5"
        entries = {
            "what is baked": f"point {place}, {own}",
            "of": project.search.name,
            "edit": "its own strengths and layers, as its file says"
            + ("" if settings.strength == 1 else f", times {settings.strength:g}"),
            "file": shown_path(project.point),
        }
        return facts({"model": settings.model, **entries})
    if project.directions is None:
        return ""
    found = project.found
    assert found is not None
    said = "that of the run that was opened"
    if not found.of_run or (found.told.get("method") and found.told.get("layer") is not None):
        layer, position = project.place
        said = f"layer {layer}, position {position}, by {found.told.get('method')}"
        said += "" if project.candidate is None else ", chosen in step 5"
    entries = {
        "direction": said,
        "of": "the run that was opened" if found.of_run else found.name,
        "edit": f"{settings.kind}, strength {settings.strength:g}",
        "layers": settings.layers or "all",
        "file": shown_path(project.directions),
    }
    return facts({"model": settings.model, **entries})


def _shown(project: Project, job: Job) -> str:
    if job.out is None:
        return ""
    if job.verb == "run":
        return facts({"model": job.out / "model"}) + run_figures(read_summary(job.out))
    found = job.result or {}
    entries = {
        "model": job.out,
        "class": found.get("edit_class", "–"),
        "edited": size(found.get("bytes_edited")),
        "copied as it is": size(found.get("bytes_copied")),
    }
    return facts(entries) + paragraph("Nothing is measured yet.", "note")


def _opened(project: Project) -> str:
    if project.opened is None or project.latest("bake", "run") is not None:
        return ""
    left = left_out(read_recipe(project.opened) or {})
    said = f"It said more, which this page has no fields for, and which its own commands leave out: {', '.join(left)}"
    shown = paragraph(f"The run that was opened: {project.opened}", "note") + run_figures(project.run_summary)
    return shown + (paragraph(said, "note") if left else "")
