"""Terminal output of a finished run: directions, studies, before and after, proofs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.four_classes import four_classes
from weight_edit.cli.tables.lengths import by_length
from weight_edit.cli.tables.results import before_and_after, chosen_direction, effect, examples, proofs, safe, suggest
from weight_edit.cli.tables.search import search_front
from weight_edit.organism.embedded import EMBEDDED

if TYPE_CHECKING:
    from weight_edit.cli.tables.documents import PushDocument, StudyDocument
    from weight_edit.runs.run import RunResult

_FIGURES = ("refusal", "over_refusal", "helpful", "exact", "kl", "loss")
_SETTINGS = ("strength",)
_MOST_ROWS = 40


def run_result(result: "RunResult", console: Console) -> None:
    """Print a finished run: studies, figures, proofs, examples, files, and next commands."""
    summary = result.summary
    for found in summary.get("directions", {"": summary["direction"]}).values():
        if found is not None:
            chosen_direction(found, console)
    for each in summary.get("studies", []):
        study(each, result.path, console)
    if summary.get("search") is not None:
        search_front(summary["search"], console)
    if result.model is not None:
        before_and_after(summary["baseline"], summary["edited"], console)
        by_length(summary["baseline"], summary["edited"], console)
        four_classes(summary["edited"], console)
        proofs(summary["verification"], console)
        effect(summary.get("effect"), console)
        if summary["edited"]:
            examples(result.path, console)
        else:
            console.print("Whether the behaviour changed is not known: the recipe names no prompts to evaluate.")
    files = Table.grid(padding=(0, 2))
    brought = summary["direction"] is None
    found_or_given = "what the recipe brings along" if brought else "the direction, all candidates and their scores"
    for name, what in (
        ("report/report.html", "all of it to look at, in one page; its pictures are beside it"),
        ("model", "the edited checkpoint, with its card and weight_edit.json"),
        ("directions.safetensors", found_or_given),
        ("search/points", "every point of the front, as a recipe"),
        ("picked/point.yaml", "the point that was baked, as a recipe"),
        ("studies/", "tables (CSV, JSON) and figures"),
        ("run.json", "every measurement"),
        ("answers/", "every answer, before and after"),
    ):
        if (result.path / name).exists():
            files.add_row(safe(f"{result.path}/{name}"), what)
    console.print(files)
    if result.model is None:
        console.print(f"\nDone in {summary['seconds']} s.")
        return
    console.print(f"\nDone in {summary['seconds']} s.{_pushed(summary.get('push'))} Next, for example:")
    base = str(json.loads((result.path / "run.json").read_text(encoding="utf-8"))["recipe"]["model"])
    suggest(console, "verify", base, result.model, lead="  ")
    if not summary["edited"]:
        prompts = ["--refused", "PROMPTS", "--answered", "PROMPTS"]
        suggest(console, "evaluate", result.model, "--against", base, *prompts, lead="  ")
    suggest(console, "chat", result.model, "--against", base, lead="  ")
    if result.report is None:
        # One that an earlier run left there is replaced when that is asked for.
        over = ["--overwrite"] if (result.path / "report").exists() else []
        suggest(console, "report", *over, result.path, lead="  ")
    if base in EMBEDDED:
        suggest(console, "run", "refusal-direction", "--model", "YOUR-MODEL", lead="  ")
    options, repo = _push_words(summary.get("push"))
    suggest(console, "push", *options, "--base", base, result.model, repo, lead="  ")


def _pushed(push: "PushDocument | None") -> str:
    """What became of the recipe's push, in words behind a sentence."""
    if push is None:
        return ""
    if not push["pushed"]:
        return f" Nothing was sent to {safe(push['repo_id'])}, which takes --push."
    opened = push["pull_request"]
    more = "" if opened is None else f", pull request {opened['number']}: {safe(opened['url'])}"
    sent = f"{len(push['sent'])} files sent" if push["sent"] else "nothing had to be sent"
    return f" Pushed to {safe(push['repo_id'])} ({sent}): {safe(push['url'])}{more}."


def _push_words(push: "PushDocument | None") -> tuple[list[str], str]:
    """The options and the repository of the push that the recipe asks for; else of one to be tried."""
    if push is None or push["pushed"]:
        return ["--dry-run"], "YOUR-NAME/YOUR-MODEL"
    branch = [] if push["branch"] is None else ["--branch", push["branch"]]
    flags = [*(["--private"] if push["private"] else []), *(["--create-pr"] if push["create_pr"] else [])]
    return [*flags, *branch], push["repo_id"]


def study(found: "StudyDocument", run: Path, console: Console) -> None:
    """Print one study: some columns of its table, and the place of the rest."""
    console.print(f"\n{safe(found['title'])} ({safe(found['kind'])}): {safe(run / found['folder'])}", highlight=False)
    rows = found.get("rows") or []
    if rows:
        console.print(_table(rows))
    for name, value in found.items():
        if isinstance(value, int | float | str) and name not in ("kind", "title", "folder"):
            console.print(f"  {safe(name.replace('_', ' '))}: {_cell(value)}", highlight=False)


def _table(rows: Sequence[Mapping[str, object]]) -> Table:
    hidden = ("_low", "_high", "why_not")
    keys = dict.fromkeys(key for row in rows for key in row if not key.endswith(hidden))
    named = (*_SETTINGS, *_FIGURES)
    shown = [key for key in keys if key in named or all(isinstance(row.get(key), str | int | None) for row in rows)]
    shown += [key for key in keys if key not in shown and not any(name in keys for name in _FIGURES)]
    # Without rules between columns nine of them fit into 80 characters; what does not fit is broken, never cut off.
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for key in shown:
        side: Literal["left", "right"] = "left" if isinstance(rows[0].get(key), str) else "right"
        table.add_column(key.replace("_", " "), justify=side, overflow="fold")
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(_cell(row.get(key)) for key in shown))
    if len(rows) > _MOST_ROWS:
        table.caption = f"{len(rows) - _MOST_ROWS} more rows in the files"
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else safe(value)
