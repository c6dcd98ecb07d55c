"""What a judge's work took, from the judge to whoever asked it: a judge itself returns judgements alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_noted: ContextVar[dict[str, Any] | None] = ContextVar("usage of the judge that works", default=None)


def note_usage(usage: Mapping[str, Any]) -> None:
    """Note what the judge that works now has used, JSON-ready; lost where nobody listens."""
    noted = _noted.get()
    if noted is not None:
        noted.update(usage)


@contextmanager
def noted_usage() -> Iterator[dict[str, Any]]:
    """Within the context, what a judge notes is in the mapping; empty for judges that note nothing."""
    found: dict[str, Any] = {}
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)
