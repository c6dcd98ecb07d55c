"""The three uses of `inspect`: look at a model, prove it anew, or try every family."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import check_free, save_whole
from weight_edit.errors import UsageError


@dataclass(frozen=True)
class Asked:
    """What to do, and how its result is shown.

    Attributes:
        work: takes revision, token and trust_remote_code.
        show: takes the result and a rich console.
    """

    work: Callable[..., Any]
    show: Callable[[Any, Any], None]


def asked(model: str | None, *, prove: bool, everything: bool, only: str | None, page: Path | None) -> Asked:
    """Which use it is.

    Raises:
        UsageError: options that do not belong together.
    """
    if everything:
        if model is not None or prove:
            raise UsageError("--all tries every family, so it takes neither MODEL nor --prove")
        types = tuple(filter(None, (only or "").split(",")))
        if page is not None and types:
            raise UsageError("the page is about all families; leave out --only or --page")
        if page is not None and not page.parent.is_dir():
            raise UsageError(f"there is no folder {page.parent} for {page.name}; make it first")
        if page is not None and page.suffix == ".json":
            raise UsageError(
                f"the verdicts would be written over the page {page.name}; give it a name that ends in .md"
            )
        if page is not None:
            # The page is made anew from an earlier one, which says what was measured by hand.
            check_free(page, True, _is_page)
            check_free(page.with_suffix(".json"), True, _are_verdicts)
        return Asked(lambda **_: _all(types, page), lambda found, console: _show_all(found, console, page))
    if model is None:
        raise UsageError("name a MODEL, or give --all to try every family")
    if only is not None or page is not None:
        raise UsageError("--only and --page go with --all")
    return (
        Asked(lambda **options: _prove(model, **options), _show_proof)
        if prove
        else Asked(lambda **options: _look(model, **options), _show)
    )


def _look(model: str, **options: Any) -> Any:
    from weight_edit.inspection.inspect import inspect

    return inspect(model, **options)


def _prove(model: str, **options: Any) -> Any:
    from weight_edit.inspection.prove import prove_in_rounds

    return prove_in_rounds(model, **options)


def _all(types: tuple[str, ...], page: Path | None) -> Any:
    from weight_edit.inspection.catalogue.page import page_of
    from weight_edit.inspection.catalogue.summary import inspect_all
    from weight_edit.inspection.catalogue.verdicts import Verdicts

    found = inspect_all(only=types)
    # A trial that failed is no verdict, so that there is nothing to publish until it is mended; the result names it.
    if page is not None and found.passed:
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        save_whole(page, page_of(found, before))
        save_whole(page.with_suffix(".json"), Verdicts.of(found).to_json())
    return found


def _is_page(page: Path) -> bool:
    from weight_edit.inspection.catalogue.page import MADE_BY

    text = page.read_text(encoding="utf-8", errors="replace")
    return not text or MADE_BY in text


def _are_verdicts(path: Path) -> bool:
    from weight_edit.inspection.catalogue.verdicts import Verdicts

    try:
        Verdicts.read(path)
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return True


def _show(result: Any, console: Any) -> None:
    from weight_edit.cli.tables.inspection import inspection

    inspection(result, console)


def _show_proof(result: Any, console: Any) -> None:
    from weight_edit.cli.tables.catalogue import proving

    proving(result, console)


def _show_all(result: Any, console: Any, page: Path | None) -> None:
    from weight_edit.cli.tables.catalogue import catalogue

    catalogue(result, console)
    if page is not None and not result.passed:
        console.print(f"{page} is as it was: what failed has no verdict", highlight=False, markup=False, soft_wrap=True)
