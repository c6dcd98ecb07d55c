"""Tables say the same in both files, and figures are the same for the same numbers."""

import csv
import json

from weight_edit.studies.tables import figure, write_table

ROWS = [
    {"name": "first, with a comma", "rate": 1 / 3, "count": 3},
    {"name": "second", "count": 4, "late": None, "more": {"a": [1, 2]}},
    {"name": "not a number", "rate": float("nan")},
]


def test_csv_and_json_hold_the_same(tmp_path):
    write_table(tmp_path / "new", "table", ROWS)
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = json.loads((tmp_path / "new" / "table.json").read_text())
    assert list(lines[0]) == ["name", "rate", "count", "late", "more"]
    assert len(lines) == len(rows) == 3
    assert float(lines[0]["rate"]) == round(rows[0]["rate"], 6)
    assert lines[1]["rate"] == lines[1]["late"] == ""
    assert rows[1]["late"] is None
    assert json.loads(lines[1]["more"]) == rows[1]["more"] == {"a": [1, 2]}
    assert [line["name"] for line in lines] == [row["name"] for row in rows] == [row["name"] for row in ROWS]


def test_a_figure_is_written_and_does_not_change(tmp_path):
    for name in ("once", "again"):
        with figure(tmp_path, name, panels=2) as panels:
            for axes in panels:
                axes.plot([0, 1], [1, 0])
    once, again = ((tmp_path / f"{name}.png").read_bytes() for name in ("once", "again"))
    assert once.startswith(b"\x89PNG")
    assert once == again
