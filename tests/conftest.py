"""Small random models of several families, the command line, a Hub on this machine."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.baked_organism import baked, baked_once  # noqa: F401 (fixtures of all tests)
from tests.helpers.browser import chromium  # noqa: F401 (a fixture, started when it is asked for)
from tests.helpers.fake_hub import FakeHub
from tests.helpers.fast_selection import fast
from tests.helpers.random_models import random_model
from weight_edit.cli import entry as cli
from weight_edit.runs import reporting
from weight_edit.runtime.loading import Model
from weight_edit.utils import progress

# Small models gain nothing from threads, and on a busy machine wait for one another.
torch.set_num_threads(1)


REPORT_OF_RUN, REPORT_OF_SEARCH = reporting.report_of_run, reporting.report_of_search


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="the first case of each quick test: see fast_selection.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        items[:], left = fast(items)
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share a cache of proven anatomies with one another, and none with the user."""
    before = os.environ.get("WEIGHT_EDIT_CACHE")
    os.environ["WEIGHT_EDIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["WEIGHT_EDIT_CACHE"]
    if before is not None:
        os.environ["WEIGHT_EDIT_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def without_reports() -> Iterator[None]:
    """Runs and searches make no page, which takes seconds each; `with_reports` has them again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "report_of_run", lambda folder: None)
        patch.setattr(reporting, "report_of_search", lambda folder: None)
        yield


@pytest.fixture
def with_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the test, runs and searches make their page."""
    monkeypatch.setattr(reporting, "report_of_run", REPORT_OF_RUN)
    monkeypatch.setattr(reporting, "report_of_search", REPORT_OF_SEARCH)


@pytest.fixture(scope="session")
def small_model() -> Callable[[str], Model]:
    """`small_model(family)`: one shared model per family; tests leave its weights alone."""
    made: dict[str, Model] = {}

    def get(family: str) -> Model:
        if family not in made:
            made[family] = random_model(family)
        return made[family]

    return get


class Result:
    """Exit code and output of one call of the command line; how far it had come is in `progress`, not in `err`."""

    def __init__(self, code: int, out: str, err: str, progress: list[str]) -> None:
        self.code, self.out, self.err, self.progress = code, out, err, progress

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`call("bake", "organism", ...)`: the command line in this process."""

    def run(*args: str | Path) -> Result:
        told: list[str] = []
        monkeypatch.setattr(progress, "_tell", lambda line: None if progress.is_quiet() else told.append(line))
        monkeypatch.setattr(sys, "argv", ["weight-edit", *map(str, args)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err, told)

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub on this machine, which huggingface_hub talks to during the test."""
    hub = FakeHub()
    hub.start()
    hub.use(monkeypatch, tmp_path / "cache")
    yield hub
    hub.stop()
