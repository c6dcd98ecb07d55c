"""Foreign text in Markdown: it is read as it was written, and is never a heading, a link, a table's cell or HTML."""

import re
from collections.abc import Iterable

from weight_edit.utils.papers import is_arxiv_id

_KEPT = frozenset(" .,-+=%():;'?!")
"""Signs that mean nothing inside of a line without brackets, slashes and the like; letters and digits neither."""


def plain(text: object, limit: int = 400) -> str:
    """Text that may stand inside a line or a table's cell.

    Every sign that Markdown or HTML could take for structure is written as an entity, which Markdown does not take for
    structure; line breaks and control characters are spaces.

    Args:
        text: whatever a file says.
        limit: the number of characters after which it is cut.
    """
    found = "".join(c if c.isalnum() or c in _KEPT else f"&#{ord(c)};" for c in _one_line(text, limit))
    # The one address that is a link by its letters and dots alone.
    return re.sub(r"(?i)\bwww\.", "www&#46;", found)


def code(text: object, limit: int = 200) -> str:
    """Text between backticks, which may stand inside a line or a table's cell: nothing in it has a meaning but `|`.

    Backticks in it become apostrophes, and bars, which would end a cell, broken bars.
    """
    line = _one_line(text, limit).replace("`", "'").replace("|", "\N{BROKEN BAR}")
    return f"`{line}`" if line else "`''`"


def codes(texts: Iterable[object], most: int = 8) -> str:
    """Several of them, with commas; of a long list the first, and how many there are besides."""
    every = [code(text) for text in texts]
    more = f" and {len(every) - most} others" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def arxiv_links(ids: Iterable[object]) -> str:
    """Links to papers on arXiv, with commas.

    Raises:
        ValueError: one that is no arXiv id.
    """
    found = list(ids)
    for one in found:
        if not is_arxiv_id(one):
            raise ValueError(f"{one!r} is no arXiv id")
    return ", ".join(f"[arXiv {one}](https://arxiv.org/abs/{one})" for one in found)


def _one_line(text: object, limit: int) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
