"""Packages whose names are imported on first use."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports names on use; also sets its `__dir__`.

    Args:
        package: its `__name__`.
        where: each name that it offers -> the module below the package that has it.
    """

    module = sys.modules[package]
    # A name that has not been used yet is no attribute.
    vars(module)["__dir__"] = lambda: sorted({*vars(module), *where})

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return get
