"""What CONTRIBUTING.md promises: its finder, its edit and its recipe, one file each, work in a copy of the package that
is otherwise as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import weight_edit

ROOT = Path(__file__).parent.parent
HEADS = {"py": '"""As in CONTRIBUTING.md."""\n\n', "yaml": ""}


def block(language: str, holding: str) -> str:
    """The one fenced block of CONTRIBUTING.md in which a phrase stands."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (found,) = (body for body in re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S) if holding in body)
    return HEADS[language] + str(found)


class Fork:
    """A copy of the package with the three files of a newcomer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "weight_edit"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(weight_edit.__file__).parent, package, ignore=ignored)
        for path, content in {
            package / "directions/finders/median_difference.py": block("py", "@finder("),
            package / "edits/kinds/soften.py": block("py", "@edit("),
            folder / "median-soften.yaml": block("yaml", "kind: soften"),
        }.items():
            assert not path.exists()
            path.write_text(content, encoding="utf-8")

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "weight_edit", *arguments],
            cwd=self.folder,
            # What is proven is kept under the sources' digest: these sources are gone after the test.
            env={**os.environ, "PYTHONPATH": str(self.folder), "WEIGHT_EDIT_CACHE": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    return Fork(tmp_path_factory.mktemp("fork"))


def test_help_knows_them_and_their_settings(fork: Fork) -> None:
    assert re.search(r"median-difference:.*scale=1\.0", fork("find", "--help"), re.S)
    assert re.search(r"soften:.*left=0\.5", fork("bake", "--help"), re.S)


def test_the_recipe_finds_bakes_and_proves(fork: Fork) -> None:
    few = ("--set", "evaluate.limit=11", "--set", "verify.limit=2", "--set", "find.n_train=48")
    result: dict[str, Any] = json.loads(fork("run", "median-soften.yaml", *few, "--out", "run", "--json"))
    manifest = json.loads((fork.folder / "run/model/weight_edit.json").read_text(encoding="utf-8"))
    (step,) = manifest["edit"]["steps"]
    assert (step["edit"], step["options"]) == ("soften", {"left": 0.1})
    found = weight_edit.load_directions(fork.folder / "run/directions.safetensors").metadata
    assert (found["method"], found["options"]) == ("median-difference", {"scale": 2.0})
    checked = result["verification"]
    assert checked["passed"]
    # Hooks are the weights, and a tenth of what writers wrote along the direction is left.
    assert checked["logit_difference"] < 1e-4
    assert checked["left_in_weights"] == pytest.approx(0.1, abs=1e-3)
    (study,) = (fork.folder / "run/studies").glob("1-*")
    rows = json.loads((study / "compare.json").read_text(encoding="utf-8"))
    assert {row["edit"] for row in rows} == {"none", "ablate", "soften"}
    before, after = (result[key]["sets"]["refused"]["refusal"]["value"] for key in ("baseline", "edited"))
    assert after < before / 2
