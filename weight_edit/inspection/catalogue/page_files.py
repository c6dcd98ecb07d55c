"""The files of the page of families and its verdicts: checks before, writing after."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.checkpoint.whole_file import check_free, save_whole
from weight_edit.errors import UsageError

if TYPE_CHECKING:
    from weight_edit.inspection.catalogue.summary import Catalogue


def check_page(page: Path | None, types: Sequence[str]) -> None:
    """Refuse a page that cannot be written, before any family is tried.

    Args:
        page: where the page goes; None for none.
        types: the model types that are asked for, all when empty.

    Raises:
        UsageError: there is no such folder, a foreign file is there, or the page would not be about all families.
    """
    if page is None:
        return
    if types:
        raise UsageError("the page is about all families; leave out `only` or `page`", option=("only", "page"))
    if not page.parent.is_dir():
        raise UsageError(f"there is no folder {page.parent} for {page.name}; make it first")
    if page.suffix == ".json":
        raise UsageError(f"the verdicts would be written over the page {page.name}; give it a name that ends in .md")
    # The page is made anew from an earlier one, which says what was measured by hand.
    check_free(page, True, _is_page)
    check_free(page.with_suffix(".json"), True, _are_verdicts)


def save_page(page: Path | None, found: "Catalogue") -> None:
    """Write the page and the verdicts, unless a trial failed."""
    if page is None or not found.passed:
        return
    from weight_edit.inspection.catalogue.page import page_of
    from weight_edit.inspection.catalogue.verdicts import Verdicts

    before = page.read_text(encoding="utf-8") if page.exists() else ""
    save_whole(page, page_of(found, before))
    save_whole(page.with_suffix(".json"), Verdicts.of(found).to_json())


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
