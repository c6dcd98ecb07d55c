"""Terminal output of `diff`: totals, shared directions, then the tensors by kind."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import SHOWN, free_folder, safe, suggest
from weight_edit.cli.tables.verdict import verdict
from weight_edit.difference.found_recipe import RECIPES

if TYPE_CHECKING:
    from weight_edit.difference.result import Difference, TensorDifference

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def difference(
    found: "Difference",
    console: Console,
    *,
    everything: bool = False,
    saved: Path | None = None,
    base: str | None = None,
) -> None:
    """Print the differences.

    Args:
        everything: a line for each tensor instead of one for each kind.
        saved: where the shared directions were written.
        base: A as the user called it, for the next command; its public name when None, which of a folder is the last
            part alone.
    """
    console.print(f"A: {safe(found.a)}\nB: {safe(found.b)}", highlight=False)
    for note in found.notes:
        console.print(f"[yellow]note:[/] {safe(note)}")
    if found.equal:
        what = f"{found.tensors_equal} tensors and {found.files_equal} files"
        console.print(f"[bold green]No difference:[/] {what} are the same, byte for byte.")
        return
    if found.verdict is not None:
        verdict(found.verdict, console, everything)
    _totals(found, console)
    _directions(found, console)
    if found.own_rows:
        console.print(
            f"{len(found.own_rows)} tensors are explained by directions of their own: a norm between them and the "
            "stream (as in Gemma) or a direction for each layer makes that so. They are marked `own`."
        )
    _tensors(found, console, everything)
    for tensor in [t for t in found.tensors if t.problem is not None][:SHOWN]:
        console.print(f"{safe(tensor.name)}: {tensor.problem}", highlight=False)
    if saved is not None and saved.suffix in RECIPES:
        console.print(f"{saved}: the edit as a recipe", markup=False)
        suggest(console, "run", saved, "--out", free_folder(f"runs/{saved.stem}"))
    elif saved is not None:
        console.print(f"{saved}: {len(found.rows)} of the shared directions, {found.rows.shape[1]} wide", markup=False)
        suggest(console, "bake", base or found.a, "--directions", saved, "--out", free_folder("edited-model"))


def _totals(found: "Difference", console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "tensors",
        f"{found.tensors_equal} the same, {len(found.tensors)} differ"
        + _more(f"{len(found.reshaped)} of another dtype or shape", found.reshaped)
        + _more(f"{len(found.only_a)} only in A", found.only_a)
        + _more(f"{len(found.only_b)} only in B", found.only_b),
    )
    for what, names in (("only in A", found.only_a), ("only in B", found.only_b)):
        if names:
            table.add_row(f"  {what}", _listed(names))
    for other in found.reshaped[:SHOWN]:
        forms = (f"{t} {list(s)}" for t, s in zip(other.dtypes, other.shapes, strict=True))
        table.add_row("  differs in form", f"{safe(other.name)}: {' and '.join(forms)}")
    table.add_row(
        "files",
        f"{found.files_equal} the same"
        + _more(f"differ: {_listed(found.files_different)}", found.files_different)
        + _more(f"only in A: {_listed(found.files_only_a)}", found.files_only_a)
        + _more(f"only in B: {_listed(found.files_only_b)}", found.files_only_b),
    )
    console.print(table, highlight=False)


def _directions(found: "Difference", console: Console) -> None:
    if not found.tensors:
        return
    if not found.directions:
        console.print("The differences share no direction of the residual stream.")
        return
    count = len(found.directions)
    said = f"The differences share {count} direction{'s' if count > 1 else ''} of the residual stream."
    if found.explained is not None and found.strength is not None:
        said += (
            f" Ablating {'them' if count > 1 else 'it'} with strength {found.strength:.3g} explains "
            f"{found.explained:.1%} of a tensor's difference, on average."
        )
    console.print(said, highlight=False)
    table = Table(title="Shared directions", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "share of the differences", "in tensors", "takes away what A had"):
        table.add_column(column, justify="right")
    for number, direction in enumerate(found.directions, 1):
        purity = f"{direction.ablation:.3f}" + ("" if direction.is_ablation else " (no ablation)")
        table.add_row(str(number), f"{direction.share:.1%}", f"{direction.tensors:.0f}", purity)
    console.print(table)


def _tensors(found: "Difference", console: Console, everything: bool) -> None:
    known = [tensor for tensor in found.tensors if tensor.relative is not None]
    if not known:
        return
    groups: dict[str, list[TensorDifference]] = {}
    for tensor in known:
        groups.setdefault(tensor.name if everything else _LAYER.sub("*", tensor.name), []).append(tensor)
    title = "Tensors that differ: |B - A| / |A|, its rank, and what an ablation explains of it"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    for column in ("n", "relative", "rank", "explained", "strength"):
        table.add_column(column, justify="right")
    for name, group in groups.items():
        fits = [tensor.best for tensor in group if tensor.best is not None]
        table.add_row(
            safe(name.replace("*", _layers(group), 1).removesuffix(".weight")),
            str(len(group)),
            f"{sum(tensor.relative or 0.0 for tensor in group) / len(group):.2g}",
            _ranks(group),
            _range([fit.explained for _, fit in fits], ".3f") + _by([kind for kind, _ in fits]),
            _range([fit.strength for _, fit in fits if fit.explained > 0.01], ".3g"),
        )
    console.print(table)


def _by(kinds: Sequence[str]) -> str:
    """The suffix that tells which directions explain the change; empty for the shared ones."""
    own = kinds.count("own")
    return "" if not own else " own" if own == len(kinds) else f" {own} own"


def _ranks(group: "Iterable[TensorDifference]") -> str:
    ranks = sorted({tensor.rank for tensor in group if tensor.rank is not None})
    full = any(tensor.full_rank for tensor in group)
    text = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}" if ranks else ""
    return ", ".join([*([text] if text else []), *(["full"] if full else [])])


def _range(values: Sequence[float], form: str) -> str:
    """The mean, with the range if it is wide."""
    if not values:
        return ""
    mean, least, most = sum(values) / len(values), min(values), max(values)
    far = most - least > 0.02 * max(abs(least), abs(most))
    return format(mean, form) + (f" ({least:{form}} to {most:{form}})" if far else "")


def _layers(group: "Iterable[TensorDifference]") -> str:
    """The first number in each name, as ranges: 0-3, 5."""
    found = (_LAYER.search(tensor.name) for tensor in group)
    numbers = sorted({int(match.group()) for match in found if match is not None})
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(safe, names[:SHOWN]))
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _more(text: str, when: Sequence[object]) -> str:
    return f"; {text}" if when else ""
