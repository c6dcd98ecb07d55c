"""The command of each step: the words that are shown are the words that run."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from weight_edit.ui.settings import Settings

_MACHINE = ("--json", "--log-format", "json")
"""What stands behind the verb of a job, so that the page can read its result and its progress."""


_NOT_FOUND = "Find a direction of this model first (step 4)."
_NOT_BAKED = "Bake first (step 7)."
_NOT_SEARCHED = "Search this model first, and pick a point (steps 4 and 5)."


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the command line.

    Attributes:
        words: behind `weight-edit`.
        out: what it writes; None where it writes nothing.
        files: what must be written beside it before it runs: content by path.
        missing: why it cannot run yet, as a sentence; empty where it can.
    """

    words: tuple[str, ...]
    out: Path | None = None
    files: tuple[tuple[Path, str], ...] = ()
    missing: str = ""

    @property
    def verb(self) -> str:
        """Its verb."""
        return self.words[0]

    def __str__(self) -> str:
        """The line for a terminal, quoted for a shell."""
        return shell_line(self.words)


def shell_line(words: Sequence[str]) -> str:
    """The line for a terminal of a command's words, without those that are for the page."""
    verb, rest = tuple(words[:1]), tuple(words[1:])
    return shlex.join(["weight-edit", *verb, *(rest[len(_MACHINE) :] if rest[: len(_MACHINE)] == _MACHINE else rest)])


def job_words(words: Sequence[str]) -> tuple[str, ...]:
    """A command's words as a job has them: with those by which the page can read what it does."""
    return (*words[:1], *_MACHINE, *words[1:])


def command(
    verb: str,
    arguments: list[str],
    options: Mapping[str, object],
    *,
    out: Path | None = None,
    files: tuple[tuple[Path, str], ...] = (),
    missing: str = "",
) -> Command:
    """A command of its parts.

    A value that begins with a dash is written so that it stays a value, whatever it says.

    Args:
        arguments: without a name; empty ones are left out, and missed by the command itself.
        options: flag -> value; True is the flag alone; None, False and "" are left out.
        out: what it writes, by its option `--out`.
        files, missing: as in `Command`.
    """
    words: list[str] = []
    if out is not None:
        options = {**options, "--out": shown_path(out)}
    for flag, value in options.items():
        if value is True:
            words.append(flag)
        elif value is not None and value is not False and value != "":
            text = _text(value)
            words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    given = [each for each in arguments if each]
    if any(each.startswith("-") for each in given):
        words = [*words, "--", *given]
    else:
        words = [*given, *words]
    return Command(words=(verb, *words), out=out, files=files, missing=missing)


def inspect_command(settings: Settings) -> Command:
    """What writes to and reads from the residual stream."""
    return command("inspect", [settings.model], {})


def plan_command(settings: Settings) -> Command:
    """What a find will cost."""
    options = {"--target": settings.target, "--baseline": settings.baseline, "--method": settings.method}
    return command("plan", [settings.model], {**options, **_loading(settings)})


def find_command(settings: Settings, out: Path, *, resumed: bool = False) -> Command:
    """The search for directions."""
    options = {
        "--target": settings.target,
        "--baseline": settings.baseline,
        "--method": "" if settings.method == Settings.method else settings.method,
        "--max-kl": "" if settings.max_kl == Settings.max_kl else settings.max_kl,
        "--confirm": _whole(settings.confirm) or "",
        "--best-effort": settings.best_effort,
        **_loading(settings),
    }
    return command("find", [settings.model], {**options, "--resume": resumed}, out=out)


def take_command(found: Path, candidate: Mapping[str, Any], out: Path) -> Command:
    """Another candidate of a find, as a directions file of its own."""
    place = {"--layer": candidate.get("layer"), "--position": candidate.get("position")}
    return command("take", [shown_path(found)], place, out=out)


def search_command(settings: Settings, out: Path, *, resumed: bool = False) -> Command:
    """The search for the best edit."""
    options = {
        "--target": settings.target,
        "--baseline": settings.baseline,
        "--over-refused": settings.over_refused,
        "--method": "" if settings.method == Settings.method else settings.method,
        "--trials": _whole(settings.trials),
        "--descents": _whole(settings.descents),
        "--judged": _whole(settings.judged),
        "--pick": settings.pick,
        **_loading(settings),
    }
    return command("search", [settings.model], {**options, "--resume": resumed}, out=out)


def chat_command(settings: Settings, tried: Path | None, edited: Path | None) -> Command:
    """The chat with the edit as hooks, or with the baked model, in a terminal.

    Args:
        tried: the directions file of a find, or the recipe of a search's point.
    """
    if settings.tried == "baked":
        words = ["" if edited is None else shown_path(edited)]
        return command("chat", words, {"--against": settings.model}, missing="" if edited is not None else _NOT_BAKED)
    if settings.way == "search":
        point = {"--recipe": "" if tried is None else shown_path(tried)}
        missing = "" if tried is not None else _NOT_SEARCHED
        return command("chat", [settings.model], {**point, **_strength(settings)}, missing=missing)
    options = {
        "--directions": "" if tried is None else shown_path(tried),
        "--kind": "" if settings.kind == Settings.kind else settings.kind,
        **_strength(settings),
        "--layers": settings.layers,
    }
    return command("chat", [settings.model], options, missing="" if tried is not None else _NOT_FOUND)


def bake_command(settings: Settings, directions: Path | None, out: Path) -> Command:
    """The edited checkpoint, nothing measured."""
    options = {
        "--directions": "" if directions is None else shown_path(directions),
        "--kind": settings.kind,
        **_strength(settings),
        "--layers": settings.layers,
    }
    missing = "" if directions is not None else _NOT_FOUND
    return command("bake", [settings.model], options, out=out, missing=missing)


def run_command(settings: Settings, directions: Path | None, folder: Path, out: Path) -> Command:
    """The base measured, the edit baked, verified and measured: a run of a recipe that is written in `folder`.

    Args:
        directions: a file in `folder`.
    """
    # One for each run: what an earlier one ran stays as it was.
    recipe = folder / f"{out.name}.yaml"
    files = () if directions is None else ((recipe, edit_recipe(settings, directions.name)),)
    missing = "" if directions is not None else _NOT_FOUND
    return command("run", [shown_path(recipe)], {}, out=out, files=files, missing=missing)


def point_command(settings: Settings, point: Path | None, folder: Path, out: Path) -> Command:
    """The same of a point of a search, which is a recipe; what is measured is laid over it."""
    measured = folder / f"{out.name}.measured.yaml"
    missing = "" if point is not None else _NOT_SEARCHED
    words = ["" if point is None else shown_path(point)]
    # Its own strengths by layer are multiplied by that of the whole.
    whole = {} if settings.strength == 1 else {"edit": {"strength": settings.strength}}
    files = ((measured, _yaml({**_measured(settings), **whole})),)
    return command("run", words, {"--with": shown_path(measured)}, out=out, files=files, missing=missing)


def verify_command(settings: Settings, edited: Path | None) -> Command:
    """The edited checkpoint held to its base."""
    missing = "" if edited is not None else _NOT_BAKED
    prompts = {"--prompts": settings.test_answered}
    device = {"--device": settings.device}
    edited_words = [] if edited is None else [shown_path(edited)]
    return command("verify", [settings.model, *edited_words], {**prompts, **device}, missing=missing)


def report_command(run: Path | None, out: Path) -> Command:
    """The report of a run."""
    missing = "" if run is not None else "Bake with measuring first (step 7): a report is of what was measured."
    return command("report", [] if run is None else [shown_path(run)], {}, out=out, missing=missing)


def push_command(settings: Settings, edited: Path | None, *, dry: bool) -> Command:
    """The upload, or what would be uploaded."""
    missing = "" if edited is not None else _NOT_BAKED
    if not missing and not settings.repo:
        missing = "Write the repository's name, owner/name."
    words = ["" if edited is None else shown_path(edited), settings.repo]
    return command("push", words, {"--private": settings.private, "--dry-run": dry}, missing=missing)


def is_dry(words: Sequence[str]) -> bool:
    """Whether a push of these words sends nothing."""
    return "--dry-run" in words


def argument_of(words: Sequence[str]) -> str:
    """The first argument of a job's words that has no name; empty where there is none."""
    rest = list(words[1 + len(_MACHINE) :])
    if "--" in rest:
        return rest[rest.index("--") + 1]
    return rest[0] if rest else ""


def option_of(words: Sequence[str], name: str) -> str:
    """The value that a job's words give an option; empty where they give none."""
    flag = f"--{name}"
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""


def edit_recipe(settings: Settings, directions: str) -> str:
    """A recipe that bakes the edit of a directions file beside it, and measures before and after."""
    edit: dict[str, Any] = {"kind": settings.kind, "strength": settings.strength}
    if settings.layers:
        edit["layers"] = settings.layers
    content = {"title": f"{settings.kind} of {settings.model}", "model": settings.model}
    return _yaml({**content, **_measured(settings), "directions": {"main": directions}, "edit": edit})


def _measured(settings: Settings) -> dict[str, Any]:
    """The sections of a recipe that say what is measured and verified."""
    sets = {
        "refused": settings.test_refused,
        "answered": settings.test_answered,
        "over_refused": settings.test_over_refused,
        "harmless_looking": settings.test_harmless,
    }
    evaluate: dict[str, Any] = {name: prompts for name, prompts in sets.items() if prompts}
    if _whole(settings.limit):
        evaluate["limit"] = _whole(settings.limit)
    loading = {flag.removeprefix("--"): value for flag, value in _loading(settings).items() if value}
    verified = {"verify": {"prompts": settings.test_answered}} if settings.test_answered else {}
    return {**loading, **verified, "evaluate": evaluate}


def shown_path(path: Path) -> str:
    """A path as one would write it here."""
    here = Path.cwd()
    try:
        shown = str(path.relative_to(here))
    except ValueError:
        return str(path)
    return f".{os.sep}{shown}" if shown.startswith("-") else shown


def _strength(settings: Settings) -> dict[str, object]:
    return {"--strength": "" if settings.strength == 1 else settings.strength}


def _loading(settings: Settings) -> dict[str, str]:
    return {"--dtype": "" if settings.dtype == "auto" else settings.dtype, "--device": settings.device}


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)


def _whole(number: float) -> int:
    return int(number) if number == number and abs(number) < 2**31 else 0


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
