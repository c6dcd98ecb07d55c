"""Papers by their arXiv ids."""

import re

# Year, month and number; four digits until 2014.
_ARXIV_ID = re.compile(r"\d{2}(0[1-9]|1[0-2])\.\d{4,5}")


def is_arxiv_id(value: object) -> bool:
    """Whether a value is the text of an arXiv id, such as "2406.11717"."""
    return isinstance(value, str) and _ARXIV_ID.fullmatch(value) is not None


def arxiv_ids(papers: str | None) -> tuple[str, ...]:
    """The arXiv ids in a text that separates them by commas.

    Raises:
        ValueError: one that does not look like an id.
    """
    found = tuple(one.strip() for one in papers.split(",")) if papers is not None else ()
    for one in found:
        if not is_arxiv_id(one):
            raise ValueError(f"{one!r} is no arXiv id, such as '2406.11717'")
    return found
