"""Parts of the page by themselves: what each says, and of what."""

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_samples import sample_run, verification, write_directions, write_json
from weight_edit.report.charts import curves, dot, dots, look, quantitative
from weight_edit.report.figure import Commands, Figure, Table
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.categories import categories
from weight_edit.report.sections.certificates import FAILS, HOLDS, OPEN, certificates
from weight_edit.report.sections.judges import judges
from weight_edit.report.sections.limits import limits
from weight_edit.report.sections.refusal import refusal
from weight_edit.report.sections.reproduction import reproduction
from weight_edit.report.sections.selection import selection
from weight_edit.report.sections.strength import strength
from weight_edit.report.sections.tensors import tensors
from weight_edit.report.values import Estimate


def test_rows_of_a_picture_that_are_shortened_alike_are_still_two() -> None:
    data = [dot("long" * 20 + middle + "name" * 20, "before", Estimate(0.5)) for middle in "ab"]
    spec = dots(data)
    assert len({row["row"] for row in spec["data"]["values"]}) == 2
    assert spec["height"] == dots([dot(name, "before", Estimate(0.5)) for name in "ab"])["height"]


def names_of_curves(ends: dict[str, float], y: dict[str, Any]) -> dict[str, float]:
    """Where the names of curves stand along y, in pixels of the axis."""
    data = [{"series": name, "x": x, "y": end, "low": None, "high": None} for name, end in ends.items() for x in (0, 1)]
    spec = curves(data, look(list(ends)), quantitative("x", "layer", percent=False), y, height=280, intervals=False)
    labels = spec["layer"][-1]["data"]["values"]
    assert len(labels) == len(ends)
    return {row["series"]: row["beside"] for row in labels}


def test_names_at_the_ends_of_curves_lie_apart_on_an_axis_of_decades() -> None:
    y = quantitative("y", "left", percent=False)
    y["scale"] = {"type": "log", "nice": True}
    places = names_of_curves({"down": 3.1e-3, "up": 3.0e-3}, y)
    # From 1e-3 to 1e-2 in 280 pixels, and a line has 14.
    assert math.log10(places["down"] / places["up"]) * 280 == pytest.approx(14)


def test_a_name_of_two_lines_keeps_above_the_axis_on_which_its_curve_ends() -> None:
    y = quantitative("y", "refused", percent=True, domain=[0, 1])
    # Drawn from the middle of its first line, 13 pixels above that of its second.
    assert names_of_curves({"the found direction": 0.0}, y)["the found direction"] * 280 >= 13 + 13 / 2


def test_the_protocol_says_how_few_requests_its_classes_have(tmp_path: Path) -> None:
    found = {"paper": "2602.02132", "of_each": 50, "missing": {"HC": 9, "BR": 1}}
    found["over_refusal_rate"] = {"value": 0.5, "low": 0.1, "high": 0.6, "prompts": [1, 50]}
    state = {"summary": {"edited": {"four_classes": found}}}
    section = judges(RunRecord(path=tmp_path, state=state, search={}))
    assert section is not None
    table = section.parts[0]
    assert isinstance(table, Table)
    assert table.rows == (("benign refused, after", "50.0 % [10.0, 60.0]"),)
    assert "here are only 9 harmful answered, 1 benign refused" in table.caption


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("induce score -6.81 below 0", "induce score below 0"),
        ("KL 0.31 above 0.1; induce score -1e-05 below 0", "KL above 0.1; induce score below 0"),
        ("layer 19 above 18, the peak of other positions", "layer above 18, the peak of other positions"),
        ("KL inf above 0.1", "KL above 0.1"),
        ("zero norm", "zero norm"),
    ],
)
def test_candidates_are_counted_by_the_bound_that_they_miss(tmp_path: Path, reason: str, said: str) -> None:
    write_directions(tmp_path / "directions.safetensors", rejected=reason)
    section = selection(RunRecord(path=tmp_path, state={}, search={}))
    assert section is not None
    table = section.parts[-1]
    assert isinstance(table, Table)
    assert table.rows == ((said, "6"),)


def strengths(folder: Path, table: str, rows: list[dict[str, Any]]) -> dict[str, Figure]:
    """The pictures of a study of strengths."""
    write_json(folder / "studies" / "1-study" / f"{table}.json", rows)
    section = strength(RunRecord(path=folder, state={}, search={}))
    assert section is not None
    return {figure.name: figure for figure in section.figures}


def test_directions_whose_names_are_nearly_alike_have_a_picture_each(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"directions": "none", "strength": 0, "refusal": 1.0, "over_refusal": 1.0}]
    for name, value in (("layer 10", 0.25), ("layer-10", 0.75)):
        rows += [{"directions": name, "strength": s, "refusal": value, "over_refusal": 0.5} for s in (0.5, 1.0)]
    drawn = strengths(tmp_path, "sweep", rows)
    told = {
        figure.title.partition("“")[2][:-1]: figure.spec["data"]["values"][2]["y"]
        for name, figure in drawn.items()
        if name.startswith("strength")
    }
    assert told == {"layer 10": 0.25, "layer-10": 0.75}


def test_long_names_of_categories_lose_no_rows(tmp_path: Path) -> None:
    names = [f"Risk of leaking or inferring information of a kind ({end})" for end in ("one", "two")]
    names += ["with  two spaces", "short", "shorter", "random"]
    rows = [
        {"direction": name, "strength": s, "refusal_rate": 0.2 * i, "over_refusal_rate": 0.1}
        for i, name in enumerate(names)
        for s in (0.0, 1.0)
    ]
    # At one strength, one direction was not measured: the mean of the others is not of the same directions.
    rows += [{"direction": name, "strength": 2.0, "refusal_rate": 0.9, "over_refusal_rate": 0.9} for name in names[1:4]]
    drawn = strengths(tmp_path, "curves", rows)
    band = drawn["steering-1-refusal"]
    assert band.title == "Refusal of harmful requests under steering along 5 directions"
    mean = [row for row in band.spec["data"]["values"] if row["series"] == "mean of 5 directions"]
    assert [(row["x"], round(row["y"], 6)) for row in mean] == [(0.0, 0.4), (1.0, 0.4)]
    directions = [row[0] for row in drawn["trade-off-1"].table.rows]
    assert len(set(directions)) == 6
    assert len([name for name in directions if name.startswith("Risk") and name.endswith("(two)")]) == 3


def test_the_mean_of_a_trade_off_pairs_the_rates_of_one_strength(tmp_path: Path) -> None:
    rows = [
        {"direction": name, "strength": s, "refusal_rate": 1 - s / 4, "over_refusal_rate": s / 10}
        for name in "abcde"
        for s in (0.0, 1.0, 2.0, 3.0)
    ]
    del rows[1]["over_refusal_rate"]
    drawn = strengths(tmp_path, "curves", rows)["trade-off-1"].spec["data"]["values"]
    points = [(row["strength"], round(row["x"], 6), round(row["y"], 6)) for row in drawn]
    assert points == [(0.0, 0.0, 1.0), (2.0, 0.2, 0.5), (3.0, 0.3, 0.25)]


def verified(changed: dict[str, Any]) -> RunRecord:
    """A run of a verification with some entries replaced."""
    return RunRecord(path=Path(), state={"summary": {"verification": {**verification(), **changed}}}, search={})


def in_dtypes(**leaks: tuple[float, float]) -> dict[str, Any]:
    """Results of the model checks in dtypes, by the leak and what is allowed of it."""
    agreement = {"largest": 1e-5, "scale": 22.0, "kl": 1e-12, "argmax": 1.0}
    return {
        dtype: {
            "leak": leak,
            "leak_before": 0.19,
            "hook_against_weights": agreement,
            "allowed": {"leak": allowed, "logits": 1e-3, "kl": 1e-6},
        }
        for dtype, (leak, allowed) in leaks.items()
    }


def test_what_is_left_of_a_complete_edit_is_the_rounding_of_its_dtype_beside_what_was_allowed() -> None:
    of_bfloat16 = in_dtypes(float32=(4.6e-4, 2.2e-3), bfloat16=(1.2e-3, 4.4e-3))
    record = verified({"storage_dtype": "bfloat16", "leak": 4.6e-4, "by_dtype": of_bfloat16})
    first = certificates(record)[0]
    assert (first.state, first.title) == (HOLDS, "Complete")
    assert "Nothing but the rounding of bfloat16 is left of the direction: 4.6e-04 of" in first.words
    assert "(0.19 in the base; 0.0022 allowed)" in first.words
    assert "the rounding of float32" in certificates(verified({}))[0].words


def test_a_bound_that_is_broken_in_the_stored_dtype_alone_fails() -> None:
    broken = in_dtypes(float32=(4.6e-4, 2.2e-3), bfloat16=(5e-3, 4.4e-3))
    first = certificates(verified({"passed": False, "by_dtype": broken}))[0]
    assert first.state == FAILS
    assert first.words.endswith("explains: 0.005 in bfloat16, 0.0044 allowed.")


@pytest.mark.parametrize(
    ("changed", "states"),
    [
        (lambda found: None, (HOLDS, HOLDS, HOLDS)),
        # It failed for what changed elsewhere; the other two were within their bounds.
        (lambda found: found.update(passed=False, integrity=False), (HOLDS, FAILS, HOLDS)),
        (lambda found: found.update(passed=False, integrity=False, by_dtype={}), (OPEN, FAILS, OPEN)),
        (lambda found: found.pop("integrity"), (HOLDS, OPEN, HOLDS)),
        (lambda found: found.pop("complete"), (OPEN, HOLDS, HOLDS)),
        (lambda found: found["by_dtype"]["float32"].update(leak=1e-4), (FAILS, HOLDS, HOLDS)),
        (lambda found: found["by_dtype"]["float32"]["hook_against_weights"].update(kl=1e-3), (HOLDS, HOLDS, FAILS)),
    ],
)
def test_a_certificate_fails_only_where_a_known_bound_is_broken(
    changed: Callable[[dict[str, Any]], object], states: tuple[str, ...]
) -> None:
    found = verification()
    changed(found)
    record = RunRecord(path=Path(), state={"summary": {"verification": found}}, search={})
    assert tuple(each.state for each in certificates(record)) == states


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"storage_dtype": "float32"}, "Rounding to float32 moves a number by up to 6.0e-08 of itself"),
        ({"storage_dtype": "bfloat16"}, "Rounding to bfloat16 moves a number by up to 0.00391 of itself"),
        ({"storage_dtype": "another"}, "logarithmic."),
        ({"complete": False}, "The edit is partial"),
    ],
)
def test_what_is_left_in_the_weights_is_read_by_the_dtype_that_they_are_stored_in(
    changed: dict[str, Any], said: str
) -> None:
    section = tensors(verified(changed))
    assert section is not None
    assert said in section.figures[0].reading
    assert "1e-8" not in section.figures[0].reading


def test_a_foreign_name_is_no_option_of_a_command(tmp_path: Path) -> None:
    record = RunRecord.read(sample_run(tmp_path / "--x", model="--trust-remote-code"))
    record.state["summary"]["edited"]["sets"]["refused"]["prompts"] = "--limit=0"
    commands = reproduction(record).parts[1]
    assert isinstance(commands, Commands)
    words = [word for line in commands.lines for word in shlex.split(line)]
    options = {word for word in words if word.startswith("-")}
    assert options == {"--out", "--against", "--overwrite"} | {
        f"--{name}" for name in ("refused", "answered", "over-refused", "harmless-looking")
    }
    assert {"./--x/recipe.yaml", "./--x-again", "./--trust-remote-code", "./--limit=0"} <= set(words)


@pytest.mark.parametrize(("model", "embedded"), [("organism", True), ("organism-labs/llama", False)])
def test_the_embedded_model_is_known_by_its_whole_name(model: str, embedded: bool) -> None:
    of_both = {"judge": "phrases", "sets": {}}
    record = RunRecord(path=Path(), state={"recipe": {"model": model}, "summary": {"baseline": of_both}}, search={})
    assert any("embedded test model" in line for line in limits(record)) == embedded


def test_of_too_many_categories_those_that_are_refused_most_are_drawn() -> None:
    rates = {f"kind {i}": {"value": i / 50, "low": 0.0, "high": 1.0, "total": 10} for i in range(45)}
    of_base = {"sets": {"refused": {"categories": rates}}}
    section = refusal(RunRecord(path=Path(), state={"summary": {"baseline": of_base}}, search={}))
    assert section is not None
    figure = section.figures[0]
    assert [row[0] for row in figure.table.rows] == [f"kind {i} (10)" for i in range(44, 4, -1)]
    assert figure.reading.endswith("5 more, none of them refused more often, are in run.json.")


def test_the_cosines_of_categories_with_nearly_one_name_have_a_cell_each(tmp_path: Path) -> None:
    names = [f"Risk of leaking or inferring information of a kind ({end})" for end in ("one", "two", "three")]
    rows = [{"category": a, **{b: 1.0 if a == b else 0.5 for b in names}} for a in names]
    write_json(tmp_path / "studies" / "1-study" / "cosines.json", rows)
    section = categories(RunRecord(path=tmp_path, state={}, search={}))
    assert section is not None
    assert len({(cell["row"], cell["column"]) for cell in section.figures[0].spec["data"]["values"]}) == 9
