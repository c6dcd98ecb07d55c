"""How a run is done again: its recipe, what it ran with, and the commands."""

import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from weight_edit.report.figure import Commands, Folded, Notes, Section, Table
from weight_edit.report.run_record import RunRecord, argument
from weight_edit.report.sections.answers import SETS
from weight_edit.report.values import at, entries, named, number, text, whole

_LONGEST = 20_000


def reproduction(record: RunRecord) -> Section:
    """Recipe, versions, prompt sets, times and commands."""
    parts: list[Any] = [
        Notes(("The first command does the same again, as its recipe says; the others look at what was made anew.",)),
        Commands(tuple(_commands(record))),
        *_facts(record),
        *_prompts(record),
        *_times(record),
        *_recipe(record),
    ]
    return Section(name="again", title="Do it again", parts=tuple(parts))


def _commands(record: RunRecord) -> Iterator[str]:
    name = argument(record.name)
    if not record.state:
        taken = text(at(record.search, "picked.point.digest"), 40) or "?"
        for point in record.points:
            if point.endswith(f"-{taken}.yaml"):
                out = argument(f"{record.name}-taken")
                yield f"weight-edit run {name}/{shlex.quote(f'points/{point}')} --out {out}"
        yield f"weight-edit report {name}"
        return
    yield f"weight-edit run {name}/recipe.yaml --out {argument(f'{record.name}-again')}"
    if record.edited:
        model = argument(record.model_argument)
        yield f"weight-edit verify {model} {name}/model"
        sets = entries(record.edited.get("sets"))
        given = [
            f"--{key.replace('_', '-')} {argument(said)}" for key in SETS if (said := text(at(sets, f"{key}.prompts")))
        ]
        yield f"weight-edit evaluate {name}/model --against {model} {' '.join(given)}"
    yield f"weight-edit report {name} --overwrite"


def _facts(record: RunRecord) -> Iterator[Table]:
    evaluated = record.edited or record.baseline
    rows = [
        ("weight_edit", text(record.state.get("weight_edit")) or text(record.search.get("weight_edit"))),
        ("model", record.model),
        ("revision", text(record.recipe.get("revision"))),
        ("dtype", text(record.recipe.get("dtype"))),
        ("seed", _whole(record.recipe.get("seed"))),
        ("exactness of the edit", text(at(record.state, "steps.bake.result.edit_class"))),
        ("stored as", text(record.verification.get("storage_dtype"))),
        ("judge that decides", text(evaluated.get("judge"))),
        ("longest answer, tokens", _whole(evaluated.get("max_new_tokens"))),
        ("directions, SHA-256", text(at(record.summary, "direction.sha256"))),
    ]
    for name, version in list(entries(record.directions.get("versions")).items())[:12]:
        row = (text(name, 40) or "?", text(version, 40))
        if row not in rows:
            rows.append(row)
    known = tuple((name, said) for name, said in rows if said)
    if known:
        yield Table(("what", "value"), known, "What it was made with.", words=True)


def _whole(found: object) -> str | None:
    value = whole(found)
    return None if value is None else str(value)


def _prompts(record: RunRecord) -> Iterator[Table]:
    rows = []
    for name, found in entries((record.edited or record.baseline).get("sets")).items():
        digest = text(at(found, "sha256"), 80)
        rows.append(
            (
                SETS.get(name, text(name, 40) or "?"),
                text(at(found, "prompts")) or "?",
                named(at(found, "count")),
                digest or "?",
            )
        )
    if rows:
        yield Table(("prompts", "set", "number", "SHA-256"), tuple(rows), "What was asked.", words=True)


def _times(record: RunRecord) -> Iterator[Table]:
    rows = []
    for name, step in list(entries(record.state.get("steps")).items())[:60]:
        seconds = number(at(step, "seconds"))
        if seconds is not None:
            rows.append((text(name, 60) or "?", f"{seconds:,.1f}"))
    total = number(record.summary.get("seconds"))
    if rows and total is not None:
        rows.append(("all of it", f"{total:,.1f}"))
    if rows:
        yield Table(("step", "seconds"), tuple(rows), "How long it took.")


def _recipe(record: RunRecord) -> Iterator[Folded]:
    if not record.recipe:
        return
    said = yaml.safe_dump(dict(record.recipe), sort_keys=False, allow_unicode=True, width=100)
    lines = [line for line in said[:_LONGEST].splitlines() if line.isprintable()]
    title = "The recipe, with everything that it leaves to the defaults"
    yield Folded(title, Commands((*lines, *(["..."] if len(said) > _LONGEST else []))))
