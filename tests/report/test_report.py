"""The report without a browser: what stands in the page, whose it is, and what somebody else's folder cannot do."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.parsed_html import ParsedHtml
from tests.helpers.report_samples import SETS, answers, sample_run, write_json, write_rows
from weight_edit.errors import UsageError
from weight_edit.report import page as page_room
from weight_edit.report.contents import page_of
from weight_edit.report.page import html
from weight_edit.report.report import report_runs
from weight_edit.report.run_record import RunRecord

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{7*7}}\u202e'


@pytest.fixture(autouse=True)
def without_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of the pictures takes seconds to make; tests of the page do without."""
    if "library" not in request.fixturenames:
        monkeypatch.setattr(page_room, "_library", lambda: "/* the library */")


@pytest.fixture
def library() -> None:
    """Asked for by a test that makes the whole page."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_run(tmp_path_factory.mktemp("runs") / "sample")


def page(*folders: Path) -> ParsedHtml:
    return ParsedHtml(html(page_of([RunRecord.read(folder) for folder in folders])))


def test_the_first_screen_says_what_was_edited_measured_checked_and_not_shown(run: Path) -> None:
    said = page(run).text
    assert "sample, with a direction of the residual stream removed (directional ablation), in every layer." in said
    assert "meant to change refusal behaviour" in said
    assert "refusal of refused requests 40 95.0 % [83.5, 98.6] 7.5 % [2.6, 19.9] -87.5 [-92.5, -82.5]" in said
    assert "KL at the first token, nats: 0.0312 [0.0212, 0.0412]" in said
    for words in ("Complete", "Only 12 tensors changed", "Behaves like the hooks", "44 other tensors and 6 files"):
        assert words in said
    assert "The smallest set has 20 prompts" in said
    assert "One run with one seed (3)" in said
    assert "Answers end at 64 tokens; 8 answers were cut there" in said


@pytest.mark.parametrize("told", [True, False])
def test_a_difference_that_may_be_chance_is_marked_in_the_picture_and_in_its_table(tmp_path: Path, told: bool) -> None:
    folder = sample_run(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    for name, of_set in record["summary"]["edited"]["differences"].items():
        of_set["refusal"] |= {"value": -0.1, "told": told or name != "answered"}
    write_json(folder / "run.json", record)
    seen = page(folder).text
    assert seen.count("(?)") == (0 if told else 2)  # the table's line and the sentence that explains it
    assert html(page_of([RunRecord.read(folder)])).count("% (?)") == (0 if told else 2)  # two widths of the picture


def test_every_part_has_its_pictures_with_words_and_numbers(run: Path) -> None:
    made = page_of([RunRecord.read(run)])
    names = [figure.name for figure in made.figures]
    assert len(names) == len(set(names))
    wanted = (
        "before-and-after length-refused categories-refused strength-1-main trade-off-1 compare-2 steering-3-refusal"
    )
    wanted += " front ranking selection-bypass geometry components separation cosines-3 divergence style by-judge"
    assert set(wanted.split()) <= set(names)
    for figure in made.figures:
        assert figure.reading.endswith(".")
        assert "" not in (figure.title, figure.alt)
        assert figure.table.rows, figure.name
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows), figure.name
        assert re.fullmatch(r"[a-z0-9-]+", figure.name)


def test_many_coinciding_curves_are_a_mean_with_a_band_and_the_control_apart(run: Path) -> None:
    made = page_of([RunRecord.read(run)])
    band = next(figure for figure in made.figures if figure.name == "steering-3-refusal")
    first = band.spec["layer"][0]
    assert first["mark"]["type"] == "area"
    drawn = {row["series"] for row in band.spec["data"]["values"]}
    assert drawn == {"mean of 11 directions", "random direction"}
    assert ("0", "50.0 %", "50.0 %", "50.0 %", "50.0 %") in band.table.rows


def test_a_page_asks_for_nothing_and_names_each_script_by_its_digest(run: Path) -> None:
    seen = page(run)
    policy = next(each["content"] for tag, each in seen.tags if tag == "meta" and each.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag, each in seen.tags:
        assert not {"src", "srcset", "style", "data"} & set(each), (tag, each)
        assert not any(name.startswith("on") for name in each)
        assert (each.get("href") or "#").startswith("#")
    assert not {"img", "link", "iframe", "object", "base"} & seen.names


def hostile_run(folder: Path) -> Path:
    sample_run(folder, title=HOSTILE, model=HOSTILE, find={"method": HOSTILE, "target": HOSTILE})
    for name, after in (("baseline", False), ("edited", True)):
        rows = answers(after, dict.fromkeys(SETS, HOSTILE))
        rows[0] |= {"answer": HOSTILE, "category": HOSTILE, "verdict": HOSTILE, "set": HOSTILE}
        write_rows(folder / "answers" / f"{name}.jsonl", rows)
    state = json.loads((folder / "run.json").read_text())
    for side in ("baseline", "edited"):
        found = state["summary"][side]
        found["sets"]["refused"]["categories"][HOSTILE] = {"value": 0.5, "low": 0.2, "high": 0.8}
        found["judges"][HOSTILE] = {}
        found["judge"] = HOSTILE
    state["summary"]["effect"]["finding"] = state["status"] = HOSTILE
    state["summary"]["verification"]["problems"] = [HOSTILE]
    write_json(folder / "run.json", state)
    return folder


def test_hostile_texts_are_texts(tmp_path: Path) -> None:
    seen = page(hostile_run(tmp_path / "hostile"))
    assert [tag for tag, _ in seen.tags].count("script") == 3
    assert not any(tag == "img" for tag, _ in seen.tags)
    assert "<script>alert(1)</script>" in seen.text
    assert "{{7*7}}" in seen.text
    # What turns the direction of a text around would show an answer otherwise than it is.
    assert "\u202e" not in seen.text


STRANGE = (None, [], {}, "x", -1, 1e308, True, [None], {"value": "x"}, {"a": {"b": []}}, [[1]], 10**299)
"""What may stand in place of any entry."""


def mutated(content: dict[str, Any]) -> Iterator[Any]:
    """The content with one entry of the upper levels replaced, each twice by one of `STRANGE`."""
    places = [
        (key, inner) for key in content for inner in [None, *(content[key] if isinstance(content[key], dict) else ())]
    ]
    for number, (key, inner) in enumerate(places):
        for value in (STRANGE[number % len(STRANGE)], STRANGE[(number * 5 + 3) % len(STRANGE)]):
            yield {**content, key: value if inner is None else {**content[key], inner: value}}


@pytest.mark.parametrize("part", ["recipe", "edited", "verification", "direction", "steps", "search"])
def test_strange_records_leave_a_gap_and_no_error(run: Path, tmp_path: Path, part: str) -> None:
    state = json.loads((run / "run.json").read_text())
    search = json.loads((run / "search" / "search.json").read_text())
    place = {"recipe": state, "steps": state, "search": {"search": search}}.get(part, state["summary"])
    good = place[part]
    for changed in mutated(good):
        place[part] = changed
        # In a folder without any file, so that it is the record alone that is read.
        record = RunRecord(path=tmp_path, state=state, search=changed if part == "search" else {})
        assert page_of([record]).title


@pytest.mark.parametrize(
    "name", ["geometry.json", "studies/1-strength/sweep.json", "studies/3-categories/cosines.json"]
)
def test_strange_tables_leave_a_gap_and_no_error(run: Path, tmp_path: Path, name: str) -> None:
    good = json.loads((run / name).read_text())
    for changed in mutated(good) if isinstance(good, dict) else ([first, *good[1:]] for first in mutated(good[0])):
        write_json(tmp_path / name, changed)
        assert page_of([RunRecord(path=tmp_path, state={}, search={})]).title
    (tmp_path / name).write_bytes(b"\xff{")
    assert any("could not be read" in line for line in page_of([RunRecord(path=tmp_path, state={}, search={})]).missing)


def test_a_run_that_is_not_finished_and_one_without_an_edit(run: Path, tmp_path: Path) -> None:
    state = json.loads((run / "run.json").read_text())
    begun = {**state, "status": "running", "summary": None}
    begun["steps"] = {"baseline": {"result": state["summary"]["baseline"], "seconds": 1.0}}
    write_json(tmp_path / "begun" / "run.json", begun)
    said = page(tmp_path / "begun").text
    assert "This run is not finished (its status: running)" in said
    assert "refusal of refused requests 40 95.0 %" in said
    assert "No edited checkpoint was measured" in said


def test_a_search_alone(run: Path) -> None:
    said = page(run / "search").text
    assert "A search for the best edit of sample" in said
    assert "the least damage that keeps the bounds" in said
    assert "point2 taken sampler 0.0333 10.0 % [2.8, 30.1]" in said


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = sample_run(tmp_path / "sample")
    (tmp_path / "secret.jsonl").write_text(
        '{"set": "refused", "prompt": "a secret", "answer": "told", "verdict": "x"}\n'
    )
    (folder / "answers" / "edited.jsonl").unlink()
    (folder / "answers" / "edited.jsonl").symlink_to(tmp_path / "secret.jsonl")
    assert "a secret" not in page(folder).text
    (folder / "run.json").rename(tmp_path / "run.json")
    (folder / "run.json").symlink_to(tmp_path / "run.json")
    with pytest.raises(UsageError, match="neither a run"):
        RunRecord.read(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "neither a run"),
        ("[]", "no record"),
        ('{"name": "of something else"}', "no record"),
        ("{", "not valid JSON.*cut off or was changed"),
        ("x" * 9, "not valid"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        report_runs(folder)
    with pytest.raises(UsageError, match="no folder"):
        report_runs(tmp_path / "nothing")
    assert not (folder / "report").exists()


@pytest.mark.parametrize("left", [None, 7])
def test_answers_that_are_not_there_are_told(run: Path, tmp_path: Path, left: int | None) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/answers/edited.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert not page_of([RunRecord.read(tmp_path / "run")]).missing
    file.unlink()
    if left is not None:
        file.write_text("".join(lines[:left]), encoding="utf-8")
    (said,) = page_of([RunRecord.read(tmp_path / "run")]).missing
    assert said == f"Of answers/edited.jsonl, {left or 0} of {len(lines)} answers are there."


def test_several_runs_are_compared_in_pairs_on_the_prompts_that_they_share(run: Path, tmp_path: Path) -> None:
    other = sample_run(tmp_path / "other", model="sample", seed=4)
    rows = answers(True)
    for row in rows[:13]:
        row["verdict"] = "refused"
    # One prompt is another one's, so that there is no pair of it.
    rows[20]["prompt"] = "asked of one alone"
    write_rows(other / "answers" / "edited.jsonl", rows)
    made = page_of([RunRecord.read(run), RunRecord.read(other)])
    table = next(figure for figure in made.figures if figure.name == "paired").table
    first = table.rows[0]
    assert first[0] == "other against sample: refused requests"
    # Ten of 39 prompts were answered by the one and refused by the other.
    assert first[1:3] == ("39", "+25.6 [+14.4, +41.1]")
    assert first[4] == "higher"
    assert "seed" in [row[0] for row in next(s for s in made.sections if s.name == "recipes").parts[0].rows]  # type: ignore[union-attr]
    said = page(run, other).text
    assert "2 runs compared" in said
    assert "2 have" not in said


def small_run(folder: Path) -> Path:
    """A run with one picture."""
    sample_run(folder)
    state = json.loads((folder / "run.json").read_text())
    found = state["summary"]["baseline"]["sets"]["answered"]
    kept = {"count": 60, "refusal": found["refusal"]}
    state["summary"] = {"baseline": {"judge": "phrases", "sets": {"answered": kept}}}
    write_json(folder / "run.json", state)
    for name in ("geometry.json", "directions.safetensors", "search/search.json"):
        (folder / name).unlink()
    for table in (folder / "studies").rglob("*.json"):
        table.unlink()
    return folder


@pytest.mark.usefixtures("library")
def test_the_files_of_a_report_are_whole_and_its_own(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "small")
    written = report_runs(folder)
    assert written.path == folder / "report" / "report.html"
    assert written.size == written.path.stat().st_size < 3_000_000
    assert [each.name for each in written.figures] == ["before-and-after.svg", "before-and-after.png"]
    assert written.figures[1].read_bytes().startswith(b"\x89PNG")
    said = written.path.read_text()
    assert "window.vegaEmbed" in said
    # The marks of the file: one dot at 0 of 60.
    svg = written.figures[0].read_text()
    assert svg.count('aria-roledescription="point"') + svg.count("mark-symbol role-mark") >= 1
    assert "@" not in re.sub(r"<text.*?</text>", "", svg)
    with pytest.raises(UsageError, match="overwrite"):
        report_runs(folder)
    again = report_runs(folder, overwrite=True)
    assert again.path.read_text() == said
    (folder / "report" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        report_runs(folder, overwrite=True)
