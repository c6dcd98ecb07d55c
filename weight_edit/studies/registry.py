"""The registry of studies: each is one file in `kinds/` with `@study("its-name")`."""

from collections.abc import Callable
from typing import Any

from weight_edit.utils.registry import Function, Named, Registry

STUDIES = Registry(what="study", package="weight_edit.studies.kinds", kind=Named[dict[str, Any]])


def study(name: str, *, paper: str | None = None) -> Callable[[Function], Function]:
    """Register a function `(lab, options)` that writes tables and returns JSON values."""
    return STUDIES.register(name, paper=paper)


studies, study_named = STUDIES.all, STUDIES.named
