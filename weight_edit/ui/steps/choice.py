"""The fifth step: the candidates of a find, or the front of a search, and which of them is taken."""

from weight_edit.ui.commands import take_command
from weight_edit.ui.figures import candidates_table, chosen_directions, front_table
from weight_edit.ui.frame import Frame, Update, html_update
from weight_edit.ui.front_picture import front_picture
from weight_edit.ui.markup import glossary, paragraph
from weight_edit.ui.opened_run import is_searched, read_recipe
from weight_edit.ui.project import Project, edit_problem, taken_path
from weight_edit.ui.steps.heading import heading

_CHOSEN = ("the one that the find chose", "")
_OWN = ("the one that the search picks by its rule", "")


def build(frame: Frame) -> None:
    """Put the choice into the frame."""
    import gradio

    heading("Look at what was found, and choose", "Nothing is written to a model before step 7.")
    shown = gradio.HTML(elem_id="choice")
    frame.show(shown, lambda project: {"value": _shown(project)})
    point = gradio.Dropdown(
        label="Point that is taken", choices=[_OWN], visible=False, interactive=True, elem_id="point"
    )
    frame.field("point", point)
    frame.show(point, _points)
    candidate = gradio.Dropdown(
        label="Candidate that is taken",
        choices=[_CHOSEN],
        visible=False,
        interactive=True,
        info="Another one is written as a directions file of its own, beside the find's. One that misses a bound was "
        "measured no further.",
        elem_id="candidate",
    )
    frame.field("candidate", candidate)
    frame.show(candidate, _candidates)
    taking = gradio.Textbox(
        label="The same in a terminal",
        visible=False,
        interactive=False,
        buttons=["copy"],
        elem_classes="we-command",
        elem_id="command-take",
    )
    frame.show(taking, _taking)
    with gradio.Accordion("The edit", open=False):
        _edit(frame)


def _edit(frame: Frame) -> None:
    """Kind, strength and layers of an edit of one direction."""
    import gradio

    from weight_edit.utils.registry_listing import registered

    known = registered("edits/kinds", "edit")
    with gradio.Row():
        kind = gradio.Dropdown(
            label="Kind of edit",
            choices=list(known),
            info="ablate takes the direction away, everywhere; it is the usual one. All are said below.",
            elem_id="kind",
        )
        frame.field("kind", kind, "kind")
        layers = gradio.Textbox(
            label="Layers",
            placeholder="all",
            info="Blocks whose weights are changed, such as 0-31 or 4,8-12. Empty is all of them, which takes the "
            "direction away whole.",
            elem_id="layers",
        )
        frame.field("layers", layers, "layers", "edit.layers")
    wrong = gradio.HTML(visible=False, elem_id="edit-wrong")
    frame.show(wrong, lambda project: html_update(paragraph(frame.wording.message(edit_problem(project)), "bad")))
    gradio.HTML(
        paragraph("A point of a search has its own kind and layers; these are for a direction of a find.", "note")
    )
    with gradio.Accordion("What the kinds are", open=False):
        gradio.HTML(glossary({name: each.summary for name, each in known.items()}))


def _shown(project: Project) -> str:
    if project.settings.way == "search":
        if not project.front:
            return paragraph("No search of this model is done yet: go back to step 4.", "note")
        return front_picture(project.front, project.picked) + front_table(project.front, project.picked)
    found = project.found
    if found is None:
        return paragraph("No find of this model is done yet: go back to step 4.", "note")
    shown = paragraph(_of_run(project), "note") if found.of_run else ""
    if not found.told:
        return shown
    said = "The direction that the find chose is not taken: another one is, as you chose below."
    shown += chosen_directions(found.told)
    shown += "" if project.candidate is None else paragraph(said, "note")
    return shown + candidates_table(found.told, project.place)


def _of_run(project: Project) -> str:
    said = "The direction is that of the run that was opened."
    recipe = None if project.opened is None else read_recipe(project.opened)
    if recipe is None or not is_searched(recipe):
        return said
    return (
        f"{said} Its model was not made of it alone: its search picked a point, with directions and strengths of its "
        "own. What is baked from here is another model."
    )


def _candidates(project: Project) -> Update:
    if project.settings.way == "search" or not project.candidates:
        return {"visible": False, "choices": [_CHOSEN], "value": ""}
    names = [
        (f"layer {each['layer']}, position {each['position']}: {each.get('rejected') or 'keeps the bounds'}", name)
        for name, each in sorted(project.candidates.items(), key=lambda item: item[1].get("rejected") is not None)
    ]
    taken = project.settings.candidate if project.candidate is not None else ""
    return {"visible": True, "choices": [_CHOSEN, *names], "value": taken}


def _taking(project: Project) -> Update:
    """The command that takes the candidate that was chosen, which the page has done by itself."""
    if project.settings.way == "search" or project.found is None or project.candidate is None:
        return {"visible": False, "value": ""}
    found, candidate = project.found.out, project.candidate
    return {"visible": True, "value": str(take_command(found, candidate, taken_path(found, candidate)))}


def _points(project: Project) -> Update:
    if project.settings.way != "search" or not project.front:
        return {"visible": False, "choices": [_OWN], "value": ""}
    names = [
        (f"{place}: {point.get('digest')}", str(point.get("digest"))) for place, point in enumerate(project.front, 1)
    ]
    own = project.settings.point if project.picked == project.settings.point else ""
    return {"visible": True, "choices": [_OWN, *names], "value": own}
