"""An environment or an edit that is found is used if it is what was asked for, and not because it is there."""

from pathlib import Path

import pytest
from stacks import environment
from stacks.cases import digest
from stacks.environment import Stack

STACK = Stack(name="ours", title="Ours", loads="nothing", packages=["first[cpu]==1.2", "second==3"], torch=True)


def made(folder: Path, *versions: str, stamp: str | None = STACK.wanted) -> None:
    """An environment whose Python says these versions of torch and both packages."""
    (folder / "ours" / "bin").mkdir(parents=True)
    if stamp is not None:
        (folder / "ours" / "installed").write_text(f"{stamp}\n", encoding="utf-8")
    if versions:
        python = folder / "ours" / "bin" / "python"
        python.write_text(f"#!/bin/sh\necho {' '.join(versions)}\n", encoding="utf-8")
        python.chmod(0o755)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "STACKS", tmp_path)
    return tmp_path


def test_an_environment_of_these_versions_is_there(folder: Path) -> None:
    made(folder, "2.13.0+cpu", "1.2", "3")
    assert STACK.absence() is None


def test_an_environment_that_is_not_there_is_absent() -> None:
    assert STACK.absence() == "no environment, or one that was not finished"


@pytest.mark.parametrize(
    ("versions", "stamp", "said"),
    [
        (["2.13.0", "1.2", "3"], None, "not finished"),
        (["2.13.0", "1.2", "3"], "torch==2.0.0", "of other versions"),
        (["2.13.0", "1.1", "3"], STACK.wanted, "has not torch==2.13.0"),
        (["2.13.0", "1.2"], STACK.wanted, "has not torch==2.13.0"),
        ([], STACK.wanted, "does not run: FileNotFoundError"),
    ],
    ids=["unfinished", "other stamp", "other package", "package missing", "no Python"],
)
def test_a_folder_alone_is_no_environment(folder: Path, versions: list[str], stamp: str | None, said: str) -> None:
    made(folder, *versions, stamp=stamp)
    assert said in str(STACK.absence())


def test_all_stacks_name_exact_versions() -> None:
    for stack in environment.stacks().values():
        assert stack.of_package or stack.absence() == "no environment, or one that was not finished"
        assert all("==" in line for line in stack.wanted.splitlines())


def test_an_edit_is_found_only_for_the_same_base_and_arguments(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}", encoding="utf-8")
    before = digest(base, 0, "ablation", {})
    assert digest(base, 0, "ablation", {}) == before
    assert len({before, digest(base, 1, "ablation", {}), digest(base, 0, "ablation", {"embeddings": "untie"})}) == 3
    (base / "config.json").write_text("[]", encoding="utf-8")
    assert digest(base, 0, "ablation", {}) != before
