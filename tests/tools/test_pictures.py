"""The pictures of README and documents are those that `make pictures` draws, from the runs that the captions name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pictures
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DRAWN = {pictures.STRENGTH, *pictures.FIGURES}


def test_every_picture_in_the_documents_is_drawn_and_no_other() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"!\[[^\]]*\]\((?:docs/)?images/([\w.-]+)\)", page.read_text("utf-8"))
    }
    assert named == DRAWN == {path.name for path in pictures.IMAGES.iterdir()}


def test_the_captions_command_is_the_one_that_is_run() -> None:
    words = " ".join(["weight-edit", *pictures.command("strength", Path("runs/pictures"))[3:]])
    said = re.search(
        r"`(weight-edit run refusal-direction[^`]*strengths[^`]*)`", (ROOT / "README.md").read_text("utf-8")
    )
    assert said is not None
    assert sorted(said[1].split()) == sorted(words.split())


def test_pictures_are_drawn_from_what_the_runs_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    row = {"directions": "none", "strength": 0.0}
    figures = ("refusal", "helpful", "exact")
    row |= {f"{name}{end}": 0.5 for name in figures for end in ("", "_low", "_high")}

    def run(command: list[str], **options: object) -> None:
        calls.append(command)
        out = Path(command[command.index("--out") + 1])
        (out / "studies/1-strength").mkdir(parents=True, exist_ok=True)
        rows = [row, *({**row, "directions": name, "strength": 1.0} for name in ("main", "random"))]
        (out / "studies/1-strength/sweep.json").write_text(json.dumps(rows), encoding="utf-8")
        (out / "report/figures").mkdir(parents=True, exist_ok=True)
        (out / "report/figures/separation.svg").write_text("<svg/>", encoding="utf-8")
        (out / "run.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(pictures, "IMAGES", tmp_path / "images")
    pictures.main(tmp_path)
    assert {path.name for path in (tmp_path / "images").iterdir()} == DRAWN
    assert (tmp_path / "images/separation.svg").read_text("utf-8") == "<svg/>"
    assert all(call[:3] == [sys.executable, "-m", "weight_edit"] and "--resume" not in call for call in calls)
    pictures.main(tmp_path)
    assert all("--resume" in call for call in calls[len(pictures.RUNS) :])
