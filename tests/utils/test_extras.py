"""Libraries of the extras: what needs one says so before any work, and the core does without them."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import weight_edit
from weight_edit.errors import UsageError
from weight_edit.prompts.hub import DatasetName, read_dataset
from weight_edit.prompts.load import load_prompts
from weight_edit.utils import extras

ROOT = Path(__file__).parents[2]
OTHERS = {"browser", "docs", "test"}
"""Those of who works on the project, which the package itself never imports."""

WITHOUT = """
import sys

for library in {libraries}:
    sys.modules[library] = None
sys.argv = ["weight-edit", *sys.argv[1:]]
from weight_edit.cli import main

main()
"""


@pytest.fixture
def none_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)


def test_they_are_the_extras_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = {name: some for name, some in declared.items() if name not in {*OTHERS, "all"}}
    named = {name: {each.partition(">")[0] for each in some} for name, some in listed.items()}
    installed_by = {(extras.DISTRIBUTIONS.get(library, library), extra) for library, extra in extras.EXTRAS.items()}
    assert {(distribution, extra) for extra, some in named.items() for distribution in some} == installed_by
    # Those of hundreds of MB that few need are asked for by name.
    usual = [name for name in named if name not in ("harness", "vllm")]
    assert declared["all"] == [f"weight-edit[{','.join(usual)}]"]
    assert "weight-edit[all]" in declared["test"]


def test_the_quickstart_lists_them_all() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| `([a-z]+)` \| ([^|]*) \|", page.partition("| extra |")[2].partition("\n\n")[0], re.MULTILINE)
    )
    assert set(rows) == {*declared} - OTHERS
    for extra in {*extras.EXTRAS.values()}:
        brought = [re.split("[>=]", each)[0].removesuffix("-python") for each in declared[extra]]
        assert all(name.lower() in rows[extra].lower() for name in brought), extra
    usual = declared["all"][0].count(",") + 1
    assert rows["all"] == f"these {('no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight')[usual]}"


@pytest.mark.usefixtures("none_installed")
def test_a_parquet_file_without_pyarrow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError) as refused:
        load_prompts(str(tmp_path / "prompts.parquet"))
    said = str(refused.value)
    assert "needs pyarrow, which is not installed; install it, or weight-edit with its extra 'data'" in said
    assert "pip install pyarrow, or in a clone pip install '.[data]'" in said


@pytest.mark.usefixtures("none_installed")
def test_studies_without_matplotlib_stop_before_a_model_is_loaded(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("weight_edit.runs.run.load", lambda *_, **__: pytest.fail("a model was loaded"))
    done = call("run", ROOT / "recipes" / "affine.yaml", "--out", tmp_path / "run")
    assert done.code == 2
    assert "needs matplotlib, which is not installed" in done.err
    assert "'studies'" in done.err


@pytest.mark.usefixtures("none_installed")
def test_a_data_set_of_the_hub_without_datasets_is_refused() -> None:
    with pytest.raises(UsageError, match="reading some/set from the Hub needs datasets, which is not installed"):
        read_dataset(DatasetName("some/set", None, "train", None))


OF_EXTRAS = {
    "weight_edit.evaluation.harness.language_model": "lm_eval",
    "weight_edit.search.journal_storage": "optuna",
}
"""Files that are a class of an extra's, which are imported in functions themselves."""


def test_each_is_imported_in_functions_alone() -> None:
    root = Path(weight_edit.__file__).parent
    paths = list(root.rglob("*.py"))
    assert len(paths) > 200
    for path in paths:
        if ".".join(("weight_edit", *path.relative_to(root).with_suffix("").parts)) in OF_EXTRAS:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & extras.EXTRAS.keys(), path
            assert not set(names) & OF_EXTRAS.keys(), path


@pytest.mark.slow
def test_the_demo_does_without_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(libraries=sorted(extras.EXTRAS)), "demo", "--out", tmp_path / "demo"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "model" / "weight_edit.json").exists()
