"""The verdicts that are committed, of one release of transformers: what tests go by, whatever release is installed.

Under another release, tests check the families that both have; what it lacks, has besides or judges otherwise is
reported as skipped. Nothing here asks transformers for anything while tests are collected.
"""

from importlib.metadata import version
from pathlib import Path

import pytest

from weight_edit.anatomy.release_data import RUNS_WITH
from weight_edit.inspection.catalogue.status import REFUSED
from weight_edit.inspection.catalogue.verdicts import Verdicts

DATA = Path(__file__).parents[2] / "docs" / "architectures.json"
VERDICTS = Verdicts.read(DATA)
TYPES = VERDICTS.by_type()
TEXT = tuple(name for name, verdict in TYPES.items() if "text" in verdict.entry.tasks)
"""Model types that transformers maps from text to text."""
DECODERS = tuple(
    name
    for name in TEXT
    if TYPES[name].status != REFUSED or not TYPES[name].reason.endswith("only decoder language models are supported")
)
"""Those of them that are not refused by their config alone."""


def there(model_type: str) -> None:
    """Report a family that the installed transformers lacks."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        otherwise(f"there is no model type '{model_type}'")


def otherwise(what: str) -> None:
    """Something differs from the verdicts: a failure in their release, and in another a report."""
    if VERDICTS.installed:
        pytest.fail(what)
    pytest.skip(f"transformers {version('transformers')}: {what}; the verdicts are of {VERDICTS.transformers}")


def running(families: tuple[str, ...]) -> list[object]:
    """Families as cases of tests that run them: where a release broke the forward pass, it is expected to fail."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.xfail(
                raises=AttributeError, strict=VERDICTS.installed, reason=f"runs in transformers {RUNS_WITH[name]}"
            ),
        )
        if name in RUNS_WITH
        else name
        for name in families
    ]
