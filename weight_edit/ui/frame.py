"""The frame of the page's steps: fields that are kept, views that follow the project, buttons that start jobs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import WeightEditError
from weight_edit.redaction import given_token, holds_token
from weight_edit.ui.commands import job_words, shell_line
from weight_edit.ui.jobs import start_job
from weight_edit.ui.late_values import LateValues
from weight_edit.ui.markup import paragraph, pre
from weight_edit.ui.project import Project, named_project
from weight_edit.ui.settings import followers
from weight_edit.ui.step import Step
from weight_edit.ui.wording import Wording

Update = Mapping[str, Any]
"""Properties of a component, such as its value."""

_QUOTED = 4
"""Characters of a value that a message has not by chance."""

_EVERY = 1.0
"""Seconds between two looks at jobs that are at work."""

_NOW, _NEXT = "What runs now, as one would write it in a terminal", "The same in a terminal"
_BUSY = "It is at work already."


@dataclass(frozen=True)
class View:
    """A component that follows the project.

    Attributes:
        component: of the page.
        render: its properties for a project.
    """

    component: Any
    render: Callable[[Project], Update]


@dataclass
class Shown:
    """What a tab shows; one for each tab, changed in place, so that two events of it never see an older one.

    Attributes:
        digests: of each view's properties, by its place.
        refused: by a step's key, why its button did not start it, and what its command missed then.
    """

    digests: dict[int, str] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)

    def forget(self) -> None:
        """Take nothing for shown: what comes next shows all."""
        self.digests.clear()


class Frame:
    """The page as it is put together.

    Args:
        folder: with all projects.
    """

    def __init__(self, folder: Path) -> None:
        import gradio

        self.folder = folder
        self.fields: dict[str, Any] = {}
        self.views: list[View] = []
        self.steps: list[Step] = []
        self.name = gradio.State("")
        self.seen = gradio.State(Shown())
        self.timer = gradio.Timer(_EVERY, active=False)
        self.token: Any = None
        self.tab: Any = None
        self.problem = self.show(gradio.HTML(visible=False, elem_id="problem"), lambda _: html_update(""))
        self.following: Any = None
        self._buttons: list[tuple[Step, Any, Any]] = []
        self._answers: dict[int, Step] = {}
        self._filling: list[Any] = []
        self._labels: dict[str, str] = {}
        self.wording = Wording(self._labels)
        # Events of a tab are handled one behind the other: what is shown last is what came last.
        self._handling = threading.RLock()

    def field(self, name: str, component: Any, *flags: str) -> Any:
        """Add a field of the settings, with a line below it for errors that are about it.

        Args:
            name: of the field.
            flags: by which errors name it: options, or arguments of functions.
        """
        import gradio

        self.fields[name] = component
        self.name_field(name, component, *flags)
        if flags:
            note = gradio.HTML(visible=False, elem_classes="we-field-error")
            self.show(note, lambda project: self._field_error(project, name, flags))
        return component

    def name_field(self, name: str, component: Any, *flags: str) -> None:
        """Have errors that name settings say a field's label in their place."""
        self._labels |= dict.fromkeys((each.rpartition(".")[2] for each in (name, *flags)), str(component.label))

    def filled(self, event: Any) -> None:
        """Take what an event has put into fields, as if it were typed: the library tells of what is typed alone."""
        self._filling.append(event)

    def show(self, component: Any, render: Callable[[Project], Update]) -> Any:
        """Have a component follow the project."""
        self.views.append(View(component, render))
        return component

    def work(self, step: Step) -> None:
        """Add a step's command, its buttons, and what is shown of its jobs."""
        import gradio

        self.steps.append(step)
        with gradio.Row(elem_classes="we-buttons"):
            start = gradio.Button(step.start, variant="primary", elem_id=f"start-{step.key}", scale=0, min_width=220)
            stop = gradio.Button("Stop", variant="stop", visible=False, elem_id=f"stop-{step.key}", scale=0)
        said = gradio.HTML(visible=False, elem_classes="we-said", elem_id=f"said-{step.key}")
        self._answers[len(self.views)] = step
        self.show(said, lambda project: {})
        self.show(start, lambda project: {"visible": not _at_work(step, project)})
        self.show(stop, lambda project: {"visible": _at_work(step, project) and not _is_stopping(step, project)})
        command = gradio.Textbox(
            label=_NEXT,
            interactive=False,
            lines=1,
            max_lines=4,
            buttons=["copy"],
            elem_classes="we-command",
            elem_id=f"command-{step.key}",
        )
        self.show(command, lambda project: _line(step, project))
        status = gradio.HTML(elem_id=f"status-{step.key}", elem_classes="we-status")
        self.show(status, lambda project: html_update(self.wording.html(step.status(project))))
        with gradio.Accordion("What the command said", open=False, visible=False) as log:
            lines = gradio.HTML()
        self.show(log, lambda project: {"visible": step.job(project) is not None})
        self.show(lines, lambda project: {"value": _lines(step, project)})
        self._buttons.append((step, start, stop))

    def wire(self) -> None:
        """Connect fields, buttons and the clock; nothing is added behind this."""
        import gradio

        self.following = LateValues({name: self.fields[name] for name in followers() if name in self.fields})
        inputs = [self.name, self.seen, *self.fields.values()]
        outputs = [self.seen, self.timer, *(view.component for view in self.views)]
        quick: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        self.timer.tick(self.told(self.refreshed), [self.name, self.seen], outputs, **quick)
        for name, component in self.fields.items():
            # Another model takes other prompts, so that all fields follow.
            handler, following = (self.remodelled, [self.following.carrier]) if name == "model" else (self.changed, [])
            # What is pasted into a text comes without a key, so that the library tells of it when the field is left.
            for event in [component.input, *([component.blur] if isinstance(component, gradio.Textbox) else [])]:
                event(
                    self.told(handler, len(following)),
                    inputs,
                    [*following, *outputs],
                    trigger_mode="always_last",
                    **quick,
                )
        for event in self._filling:
            event.then(self.told(self.remodelled, 1), inputs, [self.following.carrier, *outputs], **quick)
        for step, start, stop in self._buttons:
            start.click(self.told(self._starter(step)), [self.token, *inputs], outputs, **quick)
            stop.click(self.told(self._stopper(step)), [self.name, self.seen], outputs, **quick)

    def opened(self, project: Project) -> list[Any]:
        """Values for `everything`: a project's name, its fields, and all views."""
        import gradio

        settings = project.settings.to_dict()
        values = [gradio.update(value=settings[name]) for name in self.fields]
        return [project.name, *values, *self._views(project, Shown())]

    @property
    def everything(self) -> list[Any]:
        """The components that another project changes."""
        return [self.name, *self.fields.values(), self.seen, self.timer, *(view.component for view in self.views)]

    def project(self, name: str) -> Project:
        """The project of the page, as it is now.

        Raises:
            UsageError: it is gone; nothing is done in another.
        """
        return named_project(self.folder, name)

    def told(self, handler: Callable[..., list[Any]], before: int = 0) -> Callable[..., list[Any]]:
        """A handler of an event, whose error is said at the head of the page, where all else stays as it is.

        Args:
            before: outputs ahead of those of `outputs`.
        """
        import gradio

        def guarded(*values: Any) -> list[Any]:
            with self._handling:
                try:
                    return handler(*values)
                except WeightEditError as error:
                    said = gradio.update(**html_update(self.wrong(error)))
                    shown = next(each for each in values if isinstance(each, Shown))
                    shown.forget()
                    told = [shown, gradio.Timer(_EVERY, active=False), said]
                    return [*[gradio.skip()] * before, *told, *[gradio.skip()] * (len(self.views) - 1)]

        return guarded

    def refreshed(self, name: str, seen: Shown) -> list[Any]:
        """The views, as jobs have gone on."""
        return self._views(self.project(name), seen)

    def changed(self, name: str, seen: Shown, *values: object) -> list[Any]:
        """The views, as fields have changed, which are kept."""
        return self._views(self.kept(name, values), seen)

    def remodelled(self, name: str, seen: Shown, *values: object) -> list[Any]:
        """The changes of the fields that follow the model, and the views, as the model has changed."""
        project = self.kept(name, values)
        given = dict(zip(self.fields, values, strict=True))
        return [self.following.changes(given, project.settings.to_dict()), *self._views(project, seen)]

    def kept(self, name: str, values: Sequence[object]) -> Project:
        """The project with the fields as they are on the page."""
        project = self.project(name)
        given = dict(zip(self.fields, values, strict=True))
        # A token that was pasted in the wrong place goes into no file.
        given = {key: value for key, value in given.items() if not (isinstance(value, str) and holds_token(value))}
        settings = project.settings.changed(given)
        if settings.model != settings.shown_for:
            # A button may be pressed before the page shows the fields that have followed.
            settings = settings.on_model(settings.model)
        return project.saved(settings)

    def _starter(self, step: Step) -> Callable[..., list[Any]]:
        def start(token: str, name: str, seen: Shown, *values: object) -> list[Any]:
            # What the fields say at the press is what is kept, what runs, and what is shown.
            project = self.kept(name, values)
            missing = step.command(project).missing
            seen.refused[step.key] = self.start(step, project, token), missing
            return self._views(self.project(name), seen)

        return start

    def start(self, step: Step, project: Project, token: str = "") -> str:
        """Start a step's command; returns why it was not started, empty where it was."""
        command = step.command(project)
        if _at_work(step, project):
            return _BUSY
        if command.missing:
            return self.wording.message(command.missing)
        try:
            for path, content in command.files:
                write_whole(path, content)
            start_job(
                project.next_job(command.verb),
                job_words(command.words),
                out=command.out,
                token=given_token(token.strip()) if token and token.strip() and step.secret else None,
            )
        except WeightEditError as error:
            return self.wording.message(error)
        except OSError as error:
            return f"{project.name} cannot be written: {error.strerror}"
        return ""

    def _stopper(self, step: Step) -> Callable[..., list[Any]]:
        def stop(name: str, seen: Shown) -> list[Any]:
            project = self.project(name)
            job = step.job(project)
            if job is not None:
                with suppress(OSError):
                    job.stop()
            return self._views(project, seen)

        return stop

    def _views(self, project: Project, seen: Shown) -> list[Any]:
        """What has been seen, the clock, and each view's update; those that are as they were are left alone."""
        import gradio

        updates = []
        for place, view in enumerate(self.views):
            answers = self._answers.get(place)
            properties = _rendered(view, project) if answers is None else _refusal(answers, project, seen)
            now = sha256(repr(properties).encode("utf-8", "replace")).hexdigest()
            updates.append(gradio.skip() if seen.digests.get(place) == now else gradio.update(**properties))
            seen.digests[place] = now
        return [seen, gradio.Timer(_EVERY, active=project.running), *updates]

    def wrong(self, error: WeightEditError) -> str:
        """HTML of an error, in the words of the page."""
        return paragraph(self.wording.message(error), "bad")

    def _field_error(self, project: Project, name: str, flags: Sequence[str]) -> Update:
        value = str(getattr(project.settings, name))
        for step in self.steps:
            job = step.job(project)
            if job is not None and job.state == "failed" and job.error and _names(job.error, job.options, flags, value):
                return {"value": paragraph(self.wording.message(job.error), "bad"), "visible": True}
        return {"value": "", "visible": False}


def _names(error: str, options: Sequence[str], flags: Sequence[str], value: str) -> bool:
    """Whether an error is about a field: it names the field's option, or quotes its value."""
    if len(value) >= _QUOTED and printable(value, len(value)) in error:
        return True
    words = error.replace("'", " ").replace(":", " ").replace(",", " ").replace("=", " ").split()
    told = [word for word in words if "-" in word or "_" in word] + words[:1]
    named = {*options, *(word.lstrip("-").replace("-", "_") for word in told)}
    return any(flag in named for flag in flags)


def html_update(value: str) -> Update:
    """Properties of a component that is there only where it has something to show."""
    return {"value": value, "visible": bool(value)}


def _rendered(view: View, project: Project) -> Update:
    """A view's properties; where they cannot be told, that alone is said, and all others are there."""
    import gradio

    try:
        return view.render(project)
    except Exception as error:  # noqa: BLE001 (a document of others may hold anything)
        if not isinstance(view.component, gradio.HTML):
            return {}
        said = f"This cannot be shown, since a file of it holds something unexpected: {type(error).__name__}, {error}"
        return html_update(paragraph(said, "bad"))


def _at_work(step: Step, project: Project) -> bool:
    job = step.job(project)
    return job is not None and job.state == "running"


def _is_stopping(step: Step, project: Project) -> bool:
    job = step.job(project)
    return job is not None and job.is_stopping


def _line(step: Step, project: Project) -> Update:
    """The line of the job that is at work, as its folder says; else that of the one that the button would start."""
    job = step.job(project)
    if job is not None and job.state == "running":
        return {"label": _NOW, "value": shell_line(job.words)}
    command = step.command(project)
    label = _NEXT if job is None else f"{_NEXT}, if it is started now"
    if command.files:
        # Else it would be taken for one that is there already.
        label += f"; “{step.start}” writes {' and '.join(path.name for path, _ in command.files)} before"
    return {"label": label, "value": str(command)}


def _refusal(step: Step, project: Project, seen: Shown) -> Update:
    """Why the button did not start the step, as long as it is so."""
    said, missing = seen.refused.get(step.key, ("", ""))
    if said and (step.command(project).missing != missing or (said == _BUSY and not _at_work(step, project))):
        said = ""
    return html_update(paragraph(said, "bad"))


def _lines(step: Step, project: Project) -> str:
    job = step.job(project)
    if job is None:
        return ""
    # The line that ran: the one above is what would be started next.
    return pre((f"$ {shell_line(job.words)}", *(job.log.lines or ("nothing yet",))), "What the command said")
