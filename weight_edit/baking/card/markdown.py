"""Foreign text escaped for Markdown: shown as written, never read as markup or HTML."""

import re
from collections.abc import Iterable, Mapping

from weight_edit.utils.papers import is_arxiv_id

_KEPT = frozenset(" .,-+=%():;'?!")
"""Characters, beside letters and digits, that have no meaning in Markdown within a line."""


def plain(text: object, limit: int = 400) -> str:
    """Text escaped for a line or a table cell.

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
    """Text as inline code for a line or a table cell.

    Backticks in it become apostrophes, and bars, which would end a cell, broken bars.
    """
    line = _one_line(text, limit).replace("`", "'").replace("|", "\N{BROKEN BAR}")
    return f"`{line}`" if line else "`''`"


def codes(texts: Iterable[object], most: int = 8) -> str:
    """Several texts as inline code, comma-separated; after `most` only their number is given."""
    every = [code(text) for text in texts]
    more = f" and {len(every) - most} others" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def origin(source: object) -> str:
    """What a public prompt set is a part of, with revision and licence, behind its name; empty for other sets.

    Args:
        source: as `PromptSet.source` records it.
    """
    if not isinstance(source, Mapping) or not source.get("dataset"):
        return ""
    at = f" at {code(str(source['revision'])[:12])}" if source.get("revision") else ""
    return f" of {code(source['dataset'])}{at}, licence: {plain(source.get('licence') or 'not stated')}"


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
