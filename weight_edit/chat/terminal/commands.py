"""The commands of a chat: lines that begin with a slash."""

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from weight_edit.chat.edit_recipe import save_edit
from weight_edit.chat.session import ChatSession
from weight_edit.chat.terminal.flow import SHOWN
from weight_edit.chat.transcript import check_transcript, save_transcript
from weight_edit.chat.turns import Ended, Token
from weight_edit.edits.registry import edit_kinds
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.plan.plan import parse_layers
from weight_edit.prompts.templates import template_args
from weight_edit.utils.bounded_yaml import parse_yaml
from weight_edit.utils.names import check_known, nearest

_SETTING = re.compile(r"`(?P<option>\w+)(?:=(?P<value>[^`]*))?`")


_ROUNDING = 5e-4
"""The components below which nothing is left but rounding."""


class Leave(Exception):
    """Raised by the command that ends the chat."""


@dataclass
class ChatState:
    """What commands act on.

    Attributes:
        session: the chat.
        shown: what stands in a row of an answer, one of `SHOWN`.
        kept: the file that the chat is written to after each turn; None keeps nothing.
    """

    session: ChatSession
    shown: str = "lines"
    kept: Path | None = None


class Outcome(NamedTuple):
    """The lines and the reply that a command gives.

    Attributes:
        lines: to be shown.
        reply: answers to be drawn.
    """

    lines: Sequence[str] = ()
    reply: Generator[Token | Ended] | None = None


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        usage: its argument, for people; empty where it takes none.
        summary: what it does, in one line.
        work: the command itself, given its argument.
        values: what its argument can be, for completion.
        replaces: the command with an exclamation mark behind its name, which replaces a file.
    """

    usage: str
    summary: str
    work: Callable[[ChatState, str], Outcome]
    values: Callable[[], Iterable[str]] = tuple
    replaces: Callable[[ChatState, str], Outcome] | None = None


def run_command(state: ChatState, line: str) -> Outcome:
    """Carry out a line that begins with a slash.

    Raises:
        Leave: it ends the chat.
        UsageError, UnsupportedError: no such command, or it cannot be done; nothing has changed then.
    """
    name, _, argument = line[1:].strip().partition(" ")
    command = COMMANDS.get(_OTHER_NAMES.get(name, name))
    if command is None and name.endswith("!"):
        command = COMMANDS.get(name[:-1])
        if command is not None and command.replaces is not None:
            return command.replaces(state, argument.strip())
    if command is None:
        raise UsageError(f"{_unknown(name)}; a prompt that begins with a slash is written with two")
    argument = argument.strip()
    if not command.usage and argument:
        raise UsageError(f"/{name} stands alone")
    return command.work(state, argument)


def _unknown(name: str) -> str:
    near = nearest(name, COMMANDS)
    return f"there is no command /{name}" + (f", but /{near[0]}" if near else "; /help lists them")


def as_commands(error: WeightEditError) -> str:
    """An error's message with commands in place of the settings that it names."""

    def command(found: re.Match[str]) -> str:
        name = found["option"].replace("_", "-")
        if found["option"] not in error.options:
            return found[0]
        if name == "overwrite":
            return "an exclamation mark behind the command, such as /save!"
        value = (found["value"] or "").strip("'\"[]")
        # What no command sets was an option of the call.
        return f"{'/' if name in COMMANDS else '--'}{name} {value}".strip()

    return _SETTING.sub(command, str(error))


def state_rows(state: ChatState) -> list[tuple[str, str]]:
    """The edit, the measuring and the settings of a chat, each with its name."""
    session = state.session
    sampling, options = session.sampling, session.options
    drawn = f"drawn at temperature {sampling.temperature:g}, seed {sampling.seed}"
    taken = "the likeliest token each time" if sampling.temperature == 0 else drawn
    given = [f"{key}={value}" for key, value in options.template_args.items()]
    given += [f"thinking {options.thinking}"] if options.thinking else []
    rows = [
        ("edit", None if session.edit is None else f"{session.edit.described} (as hooks: nothing is baked)"),
        ("bars", _measured(session)),
        ("answers", f"{taken}, at most {sampling.max_new_tokens} tokens"),
        ("memory", None if session.memory else "off: each prompt is answered alone"),
        ("system", options.system),
        ("template", ", ".join(given)),
        ("kept", None if state.kept is None else f"in {state.kept} after each turn"),
    ]
    return [(name, text) for name, text in rows if text]


def _measured(session: ChatSession) -> str | None:
    if session.layer is None:
        return None
    scale = session.scale
    ends = "full at the largest one of this chat"
    if scale is not None:
        ends = (
            f"empty at {figure(scale.baseline)}, the mean of its baseline prompts, full at {figure(scale.target)}, "
            "that of its target prompts"
        )
    return f"component along the direction at the input of block {session.layer}: {ends}"


def figure(component: float) -> str:
    """A component with three digits; rounding errors are 0."""
    return "0" if abs(component) < _ROUNDING else f"{component:.3g}"


def _help(state: ChatState, _: str) -> Outcome:
    width = max(len(f"/{name} {command.usage}") for name, command in COMMANDS.items())
    lines = [f"{f'/{name} {command.usage}':{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return Outcome([*lines, "", "Alt-Enter begins a new line; Ctrl-C stops an answer; Ctrl-D leaves."])


def _strength(state: ChatState, text: str) -> Outcome:
    state.session.change_edit(strength=_number(text, "/strength 0.7"))
    return _edit_now(state)


def _kind(state: ChatState, text: str) -> Outcome:
    _wanted(text, "/kind reflect or /kind affine toward=target")
    name, *settings = text.split()
    check_known("edit", name, edit_kinds())
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting}: write key=value, for example /kind affine toward=target")
        try:
            options[key] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"{setting}: the value is no YAML ({error})") from error
    state.session.change_edit(kind=name, **({"options": options} if options else {}))
    return _edit_now(state)


def _layers(state: ChatState, text: str) -> Outcome:
    _wanted(text, "/layers 4-12 or /layers all")
    state.session.change_edit(layers=None if text == "all" else parse_layers(text))
    return _edit_now(state)


def _at(state: ChatState, text: str) -> Outcome:
    _wanted(text, "/at 12 or /at none")
    state.session.change_edit(at=() if text == "none" else tuple(sorted(parse_layers(text) or ())))
    return _edit_now(state)


def _system(state: ChatState, text: str) -> Outcome:
    if text:
        state.session.change_format(system=None if text == "off" else text)
    now = state.session.options.system
    return Outcome(["no system prompt" if now is None else f"system prompt: {now}"])


def _template_arg(state: ChatState, text: str) -> Outcome:
    _wanted(text, "/template-arg enable_thinking=false, or /template-arg off to drop all")
    session = state.session
    given = {} if text == "off" else {**session.options.template_args, **template_args([text])}
    session.change_format(template_args=given)
    said = ", ".join(f"{key}={value}" for key, value in given.items())
    return Outcome([f"template arguments: {said or 'none'}"])


def _thinking(state: ChatState, text: str) -> Outcome:
    check_known("setting of thinking", text, ("on", "off", "auto"))
    state.session.change_format(thinking=None if text == "auto" else text)
    return Outcome([f"thinking: {text}"])


def _memory(state: ChatState, text: str) -> Outcome:
    check_known("setting of memory", text, ("on", "off"))
    state.session.memory = text == "on"
    return Outcome(["the conversation goes on" if state.session.memory else "each prompt is answered alone"])


def _temperature(state: ChatState, text: str) -> Outcome:
    value = _number(text, "/temperature 0.7; 0 takes the likeliest token")
    state.session.sampling = replace(state.session.sampling, temperature=value)
    return Outcome([f"temperature {value:g}"])


def _seed(state: ChatState, text: str) -> Outcome:
    state.session.sampling = replace(state.session.sampling, seed=_whole_number(text, "/seed 1"))
    return Outcome([f"seed {state.session.sampling.seed}"])


def _max_new_tokens(state: ChatState, text: str) -> Outcome:
    value = _whole_number(text, "/max-new-tokens 256")
    state.session.sampling = replace(state.session.sampling, max_new_tokens=value)
    return Outcome([f"at most {value} tokens"])


def _show(state: ChatState, text: str) -> Outcome:
    check_known("way to show answers", text, SHOWN)
    state.shown = text
    return Outcome([f"answers are shown as {text}"])


def _status(state: ChatState, _: str) -> Outcome:
    return Outcome([f"{name}: {text}" for name, text in state_rows(state)])


def _retry(state: ChatState, _: str) -> Outcome:
    return Outcome(reply=state.session.retry())


def _undo(state: ChatState, _: str) -> Outcome:
    turn = state.session.undo()
    return Outcome([f"taken back: {turn.prompt}"])


def _clear(state: ChatState, _: str) -> Outcome:
    state.session.clear()
    return Outcome(["the conversation begins anew"])


def _save(state: ChatState, text: str, *, overwrite: bool = False) -> Outcome:
    path = _file(text, "/save recipe.yaml")
    files = save_edit(state.session, path, overwrite=overwrite)
    return Outcome([f"written: {', '.join(map(str, files))}; `weight-edit run {path}` makes a model of it"])


def _save_chat(state: ChatState, text: str, *, overwrite: bool = False) -> Outcome:
    path = _file(text, "/save-chat chat.json or /save-chat chat.md")
    check_transcript(path, overwrite=overwrite)
    save_transcript(state.session, path)
    return Outcome([f"written: {path}"])


def _quit(state: ChatState, _: str) -> Outcome:
    raise Leave


def _edit_now(state: ChatState) -> Outcome:
    edit = state.session.edit
    return Outcome([] if edit is None else [edit.described])


def _wanted(text: str, example: str) -> None:
    if not text:
        raise UsageError(f"write for example {example}")


def _number(text: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is no number; write for example {example}") from None


def _whole_number(text: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is no whole number; write for example {example}") from None


def _file(text: str, example: str) -> Path:
    _wanted(text, example)
    return Path(text).expanduser()


_OTHER_NAMES = {"exit": "quit", "q": "quit", "?": "help", "h": "help"}

COMMANDS = {
    "help": Command("", "these lines", _help),
    "status": Command("", "the edit, what is measured, and the settings", _status),
    "strength": Command("X", "strength of the edit: 0 is none, 1 the full one", _strength),
    "kind": Command("KIND [KEY=VALUE ...]", "kind of edit: ablate, reflect, affine, add ...", _kind, edit_kinds),
    "layers": Command("4-12|all", "blocks whose writers are edited", _layers, lambda: ("all",)),
    "at": Command("12|none", "blocks at whose inputs the edit is made, for kinds that are made there", _at),
    "system": Command("TEXT|off", "the system prompt", _system, lambda: ("off",)),
    "thinking": Command("on|off|auto", "whether the model thinks first", _thinking, lambda: ("on", "off", "auto")),
    "template-arg": Command("KEY=VALUE|off", "a variable of the chat template", _template_arg),
    "memory": Command("on|off", "whether earlier turns are part of what is asked", _memory, lambda: ("on", "off")),
    "temperature": Command("X", "0 takes the likeliest token, 1 draws as the model says", _temperature),
    "seed": Command("N", "of the draws", _seed),
    "max-new-tokens": Command("N", "length of an answer, at most", _max_new_tokens),
    "show": Command("lines|tokens|text", "a bar by line, a bar and a number by token, or none", _show, lambda: SHOWN),
    "retry": Command("", "answer the last prompt again", _retry),
    "undo": Command("", "take the last turn back", _undo),
    "clear": Command("", "begin a new conversation", _clear),
    "save": Command(
        "FILE",
        "the edit as a recipe (.yaml) for `weight-edit run`; /save! replaces a file",
        _save,
        replaces=partial(_save, overwrite=True),
    ),
    "save-chat": Command(
        "FILE",
        "the conversation, .json or .md; /save-chat! replaces a file",
        _save_chat,
        replaces=partial(_save_chat, overwrite=True),
    ),
    "quit": Command("", "leave", _quit),
}
"""Name -> command, in the order of the help."""
