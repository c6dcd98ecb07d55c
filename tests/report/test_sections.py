"""Parts of the page by themselves: what each says, and of what."""

from pathlib import Path
from typing import Any

from tests.helpers.report_samples import write_json
from weight_edit.report.charts import dot, dots
from weight_edit.report.figure import Figure
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.strength import strength
from weight_edit.report.values import Estimate


def test_rows_of_a_picture_that_are_shortened_alike_are_still_two() -> None:
    data = [dot("long" * 20 + middle + "name" * 20, "before", Estimate(0.5)) for middle in "ab"]
    spec = dots(data)
    assert len({row["row"] for row in spec["data"]["values"]}) == 2
    assert spec["height"] == dots([dot(name, "before", Estimate(0.5)) for name in "ab"])["height"]


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
