"""The folder in which the tool keeps what would take long to find again: proofs, and answers of servers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_own: ContextVar[Path | None] = ContextVar("own cache folder", default=None)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Within the context, what is cached goes to `folder`, apart from the user's cache.

    A context variable, because `bake` and `inspect` lie between who asks for it and `proven_anatomy`; other threads
    keep the cache that they have.
    """
    before = _own.set(folder)
    try:
        yield
    finally:
        _own.reset(before)


def cache_folder() -> Path | None:
    """The cache's folder; None without a home.

    It is the folder of `own_cache`, else `$WEIGHT_EDIT_CACHE`, else `weight_edit` in `$XDG_CACHE_HOME` or in
    `~/.cache`.
    """
    here = _own.get()
    if here is not None:
        return here
    own = os.environ.get("WEIGHT_EDIT_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # By its specification, the variable counts only if it is absolute.
    if Path(shared).is_absolute():
        return Path(shared) / "weight_edit"
    try:
        return Path.home() / ".cache" / "weight_edit"
    except RuntimeError:
        return None
