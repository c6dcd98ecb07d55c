"""Papers by their arXiv ids."""

import re

# Year, month and number; four digits until 2014.
_ARXIV_ID = re.compile(r"\d{2}(0[1-9]|1[0-2])\.\d{4,5}")


def arxiv_ids(papers: str | None) -> tuple[str, ...]:
    """The arXiv ids in a text that separates them by commas.

    Raises:
        ValueError: one that does not look like an id.
    """
    found = tuple(one.strip() for one in papers.split(",")) if papers is not None else ()
    for one in found:
        if not _ARXIV_ID.fullmatch(one):
            raise ValueError(f"{one!r} is no arXiv id, such as '2406.11717'")
    return found
