"""The chat of the page: one session in memory, and its turns as HTML with the component beside each token."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError, WeightEditError, first_line
from weight_edit.prompts.load import load_prompts
from weight_edit.ui.markup import paragraph, text
from weight_edit.ui.project import Project

if TYPE_CHECKING:
    from weight_edit.chat.session import ChatSession
    from weight_edit.chat.turns import Answer

HOOKS, BAKED = "hooks", "baked"
"""What is talked to: the base beside itself under the edit, or the baked model beside the base."""

_LONGEST = 256
"""Tokens of an answer."""


@dataclass
class Conversation:
    """The one chat of a server: models take memory, so that another one takes its place.

    Attributes:
        session: what is open; None before the first prompt.
    """

    session: "ChatSession | None" = None
    _folder: Path | None = None
    _key: tuple[Any, ...] = ()
    _opening: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _replying: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def is_busy(self) -> bool:
        """Whether a prompt is being answered."""
        return self._replying.locked()

    def reply(self, project: Project, way: str, prompt: str) -> Iterator[str | None]:
        """HTML of all turns, as the answers to a prompt come; None first, once the prompt is taken.

        Raises:
            UsageError, UnsupportedError: there is no prompt, another one is being answered, nothing was found yet that
                could be tried, or what the session refuses; or it failed for any other reason, such as memory: the page
                would wait for it.
        """
        if not prompt.strip():
            raise UsageError("write a prompt first")
        # Before a model is loaded, which takes long.
        self._source(project, way)
        if not self._replying.acquire(blocking=False):
            raise UsageError("the prompt before is still being answered: send this one when that is done")
        try:
            yield None
            from weight_edit.chat.turns import Token

            session = self.open(project, way)
            earlier = turns_html(session)
            given: list[list[tuple[str, float | None, bool]]] = [[] for _ in session.sides]
            for event in session.reply(prompt):
                if isinstance(event, Token):
                    given[event.side].append((event.text, event.component, event.thought))
                    yield earlier + _turn(session, prompt, given)
            yield turns_html(session)
        except WeightEditError:
            raise
        except Exception as error:
            raise UsageError(f"no answer could be given ({type(error).__name__}: {first_line(error)})") from error
        finally:
            self._replying.release()

    def open(self, project: Project, way: str) -> "ChatSession":
        """The session for what is chosen, with its strength; the one before is dropped where it is another's.

        Raises:
            UsageError, UnsupportedError: see `reply`.
        """
        from weight_edit.chat.opening import open_chat
        from weight_edit.chat.sampling import Sampling
        from weight_edit.plan.plan import parse_layers
        from weight_edit.runs.recipe_edit import recipe_edit
        from weight_edit.runtime.options import LoadOptions

        settings = project.settings
        if not self._opening.acquire(blocking=False):
            raise UsageError("the models are still being loaded")
        try:
            key = (way, settings.model, settings.dtype, settings.device, _stamp(self._source(project, way)))
            if self.session is None or key != self._key:
                self.close()
                loading = LoadOptions(dtype=settings.dtype, device=settings.device or None)
                sampling = Sampling(max_new_tokens=_LONGEST)
                if way == BAKED:
                    edited = self._source(project, way)
                    session = open_chat(edited, against=settings.model, load_options=loading, sampling=sampling)
                else:
                    source = self._source(project, way)
                    edit: dict[str, Any] = {"directions": source}
                    if settings.way == "search":
                        edit = {"edit_step": recipe_edit(source)}
                    session = open_chat(settings.model, **edit, load_options=loading, sampling=sampling)
                self.session, self._key, self._folder = session, key, project.folder
            if way == HOOKS and settings.way == "search":
                self.session.change_edit(strength=settings.strength)
            elif way == HOOKS:
                layers = parse_layers(settings.layers or None)
                self.session.change_edit(kind=settings.kind, strength=settings.strength, layers=layers)
            return self.session
        finally:
            self._opening.release()

    def stop(self, project: Project) -> None:
        """Stop the answers that are given in a project; those of another project's go on."""
        if self.session is not None and self._folder == project.folder:
            self.session.stop()

    def close(self, project: Project | None = None) -> None:
        """Drop the session and its models; with a project, only if it is that one's."""
        if project is not None and self._folder != project.folder:
            return
        if self.session is not None:
            self.session.stop()
        self.session, self._key, self._folder = None, (), None

    @staticmethod
    def _source(project: Project, way: str) -> Path:
        if way == BAKED:
            found, lacking = project.edited, "bake first (step 7)"
        elif project.settings.way == "search":
            found, lacking = project.point, "search first (step 4)"
        else:
            found, lacking = project.directions, "find a direction first (step 4)"
        if found is None:
            raise UsageError(lacking)
        return found


def example(spec: str, number: int) -> str:
    """A prompt of a set.

    Args:
        number: any; sets begin anew behind their ends.

    Raises:
        UsageError: the set cannot be read.
    """
    prompts = load_prompts(spec).prompts
    return prompts[number % len(prompts)]


def turns_html(session: "ChatSession") -> str:
    """All turns of a session."""
    shown = []
    for turn in session.turns:
        sides = [_pieces(answer) for answer in turn.answers]
        shown.append(_turn(session, turn.prompt, sides, turn.answers))
    return "".join(shown)


def _pieces(answer: "Answer") -> list[tuple[str, float | None, bool]]:
    components: Sequence[float | None] = answer.components or [None] * len(answer.pieces)
    return [(piece, component, False) for piece, component in zip(answer.pieces, components, strict=False)]


def _turn(
    session: "ChatSession",
    prompt: str,
    given: Sequence[Sequence[tuple[str, float | None, bool]]],
    answers: "Sequence[Answer]" = (),
) -> str:
    columns = []
    for place, side in enumerate(session.sides):
        tokens = "".join(_token(session, *piece) for piece in given[place])
        under = ""
        if answers:
            answer = answers[place]
            mean = "" if answer.mean is None else f" · {answer.mean:.1f} along the direction"
            cut = "" if answer.reason == "end" else f" · {answer.reason}"
            said = f"{answer.tokens} tokens{mean}{cut}" + (f" · {answer.edit}" if answer.edit else "")
            under = paragraph(said, "note")
        columns.append(f'<div class="we-side"><h3>{text(side.name)}</h3><p class="we-answer">{tokens}</p>{under}</div>')
    asked = f'<p class="we-prompt">{text(prompt)}</p>'
    return f'<div class="we-turn">{asked}<div class="we-sides">{"".join(columns)}</div></div>'


def _token(session: "ChatSession", piece: str, component: float | None, thought: bool) -> str:
    """A token, the darker the further the stream goes along the direction: from ordinary to refused prompts' mean."""
    if component is None or session.scale is None:
        return f"<i>{text(piece)}</i>" if thought else text(piece)
    share = min(1.0, max(0.0, session.scale.share(component)))
    look = f"background: rgb(217 119 6 / {0.55 * share:.2f})"
    said = f"{component:.1f} along the direction"
    return f'<span class="we-token" style="{look}" title="{said}">{text(piece)}</span>'


def _stamp(path: Path) -> tuple[str, int]:
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError:
        return str(path), 0
