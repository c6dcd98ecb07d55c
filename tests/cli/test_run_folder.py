"""A run's folder given where its model or its directions are wanted, or the reverse: what was meant is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from weight_edit import verify
from weight_edit.checkpoint.manifest import FinishedOutput
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.directions.file import read_rows
from weight_edit.errors import UsageError
from weight_edit.hub.source import resolve
from weight_edit.report.run_record import RunRecord
from weight_edit.ui.project import open_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, as far as names go."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "run.json").write_text('{"recipe": {}}')
    for name in ("directions.safetensors", "model/config.json", "model/weight_edit.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("reads", "given", "meant"),
    [
        (resolve, ".", "model"),
        (Checkpoint.open, ".", "model"),
        (FinishedOutput.of, ".", "model"),
        (lambda folder: verify("organism", folder), ".", "model"),
        (read_rows, ".", "directions.safetensors"),
        (RunRecord.read, "model", "."),
        (RunRecord.read, "run.json", "."),
        (lambda path: open_run(path.parents[1] / "projects", str(path)), "model", "."),
        (lambda path: open_run(path.parents[1] / "projects", str(path)), "run.json", "."),
    ],
    ids=["model", "checkpoint", "output", "verified", "directions", "report", "record", "page", "page's record"],
)
def test_what_was_meant_is_named(run: Path, reads: Callable[[Path], object], given: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        reads(run / given)
    assert f"did you mean {run / meant}?" in str(raised.value)


def test_nothing_is_named_where_several_models_may_be_meant(run: Path) -> None:
    (run / "other").mkdir()
    (run / "other" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"no config\.json; give a whole model"):
        resolve(run)
