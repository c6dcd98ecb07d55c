"""Terminal output of packs: what was packed, applied and undone."""

from typing import TYPE_CHECKING

from rich.console import Console

from weight_edit.cli.tables.results import megabytes, safe, suggest

if TYPE_CHECKING:
    from weight_edit.packs.apply import AppliedPack, ApplyResult
    from weight_edit.packs.pack import PackResult
    from weight_edit.packs.undo import UndoResult

_SHOWN = 3


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _amount(count: int) -> str:
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else megabytes(count)


def packed(result: "PackResult", console: Console, base: str | None = None) -> None:
    """Print what a pack holds, and what it cannot tell.

    Args:
        base: as the user named it.
    """
    what = f"the SHA-256 of {result.files} files ({megabytes(result.bytes_result)})"
    _say(
        console, f"{safe(result.path)}: {_amount(result.size)}, for {'; then '.join(map(safe, result.steps))}; {what}."
    )
    if result.bytes_base is None:
        _say(
            console,
            "note: the base was not at hand, so that apply will not tell its base from another one before it writes; "
            "pack again with --base to tell it",
        )
    else:
        _say(console, f"Base: {safe(result.base)}, {megabytes(result.bytes_base)}, with the SHA-256 of its files.")
    if result.reversible and result.bytes_base:
        share = result.size / result.bytes_base
        _say(console, f"Reversible: {_amount(result.bytes_reversal)} of it, {share:.1%} of the base, give that back.")
    suggest(console, "apply", result.path, "--base", base or result.base or "BASE", "--out", "edited-again")


def applied(result: "ApplyResult", console: Console, base: str | None = None) -> None:
    """Print what was made of which base, and whether it is the published result.

    Args:
        base: as the user named it.
    """
    for each in result.packs:
        _applied(each, console, dry_run=result.dry_run)
    if result.dry_run:
        return
    said = "every file has the published SHA-256" if result.published else "another result than the published one"
    _say(console, f"{safe(result.path)}: {said}.")
    if len(result.packs) == 1:
        suggest(console, "verify", base or result.packs[0].base, result.path)


def _applied(each: "AppliedPack", console: Console, *, dry_run: bool) -> None:
    tensors = f"{len(each.edited.tensors)} tensors edited, {megabytes(each.edited.bytes_total)}"
    if each.base_is_same is None:
        base = f"whether {safe(each.base)} is its base will show in the result ({safe(each.told_by)})"
    elif each.base_is_same:
        base = f"{safe(each.base)} is its base, {safe(each.told_by)}"
    else:
        base = f"{safe(each.base)} is another base than its own, {safe(each.told_by)}: this is another result"
    _say(console, f"{safe(each.name)}: {base}; {tensors}{' would be written' if dry_run else ''}.")
    if each.differing:
        shown = ", ".join(map(safe, each.differing[:_SHOWN]))
        more = f" and {len(each.differing) - _SHOWN} more" if len(each.differing) > _SHOWN else ""
        _say(console, f"note: not the base's own: {shown}{more}")


def undone(result: "UndoResult", console: Console) -> None:
    """Print what was given back, and of how much."""
    share = f"the pack has {_amount(result.bytes_pack)}, {result.bytes_pack / max(1, result.bytes_total):.1%} of it"
    what = f"{result.files} files, {megabytes(result.bytes_total)}, {megabytes(result.bytes_restored)} of them restored"
    if result.dry_run:
        _say(console, f"{safe(result.path)} would be written: {what}; {share}.")
    else:
        _say(console, f"{safe(result.path)}: every file has the SHA-256 of {safe(result.base)}'s; {what}; {share}.")
