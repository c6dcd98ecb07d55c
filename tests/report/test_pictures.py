"""The pictures' files: marks stand where the run has its figures, read back through the axes that are drawn."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import vl_convert

from tests.helpers.report_samples import sample_run
from weight_edit.report.contents import page_of
from weight_edit.report.figure_files import file_spec
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import BASE, EDITED, LIGHT

SVG = "{http://www.w3.org/2000/svg}"
PLACE = re.compile(r"translate\(([-\d.e]+),([-\d.e]+)\)")


class Drawn:
    """A picture as it was drawn.

    Attributes:
        marks: x, y and fill of each symbol, in pixels of the plot.
        across, up: numbers of the axes by their pixels.
    """

    def __init__(self, svg: str) -> None:
        tree = ET.fromstring(svg)
        self.marks = [
            (*self._at(path), path.get("fill"))
            for group in tree.iter(f"{SVG}g")
            if "mark-symbol role-mark" in (group.get("class") or "")
            for path in group.iter(f"{SVG}path")
        ]
        self.across: dict[float, float] = {}
        self.up: dict[float, float] = {}
        for group in tree.iter(f"{SVG}g"):
            if "role-axis-label" in (group.get("class") or ""):
                for label in group.iter(f"{SVG}text"):
                    x, y = self._at(label)
                    said = (label.text or "").replace("−", "-")
                    if re.fullmatch(r"-?[\d.]+%?", said):
                        value = float(said.rstrip("%")) / (100 if said.endswith("%") else 1)
                        axis, pixel = (self.across, x) if label.get("text-anchor") != "end" or x > 0 else (self.up, y)
                        axis[value] = pixel

    @staticmethod
    def _at(element: ET.Element) -> tuple[float, float]:
        found = PLACE.match(element.get("transform") or "")
        assert found is not None
        return float(found[1]), float(found[2])

    def value(self, pixel: float, axis: dict[float, float], shift: float = 0.0) -> float:
        """The number at a pixel."""
        (a, low), (b, high) = min(axis.items()), max(axis.items())
        return a + (pixel - low - shift) * (b - a) / (high - low)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory):
    record = RunRecord.read(sample_run(tmp_path_factory.mktemp("runs") / "sample"))
    return {figure.name: figure for figure in page_of([record]).figures}, record


def draw(figure) -> Drawn:
    return Drawn(vl_convert.vegalite_to_svg(file_spec(figure), allowed_base_urls=[]))


def test_the_dots_of_the_first_screen_stand_at_the_rates(figures) -> None:
    known, record = figures
    drawn = draw(known["before-and-after"])
    for side, colour in ((record.baseline, LIGHT[BASE]), (record.edited, LIGHT[EDITED])):
        read = [
            drawn.value(x, drawn.across) for x, _, fill in sorted(drawn.marks, key=lambda m: m[1]) if fill == colour
        ]
        kept = [
            side["sets"][name][of]["value"]
            for name, of in (
                ("refused", "refusal"),
                ("refused", "exact"),
                ("over_refused", "refusal"),
                ("harmless_looking", "refusal"),
                ("answered", "refusal"),
                ("answered", "exact"),
            )
        ]
        assert read == pytest.approx(kept, abs=1e-6)


def test_curves_stand_at_the_figures_of_a_sweep(figures) -> None:
    known, record = figures
    drawn = draw(known["strength-1-main"])
    rows = [row for row in record.table("1-strength", "sweep") if row["directions"] in ("none", "main")]
    read = {(round(drawn.value(x, drawn.across), 6), round(1 - y / 280, 6)) for x, y, _ in drawn.marks}
    for row in rows:
        assert (row["strength"], pytest.approx(row["refusal"], abs=1e-6)) in [
            (x, y) for x, y in read if abs(y - row["refusal"]) < 1e-5
        ]


def test_the_front_stands_at_damage_and_judged_refusal(figures) -> None:
    known, record = figures
    drawn = draw(known["front"])
    points = [*record.search["front"], record.search["plain"], *record.search["others"]]
    kept = sorted(point["judged"]["sets"]["refused"]["refusal"]["64"]["value"] for point in points)
    # The picture reaches from -4% to 104%.
    seen = [(x, 1.04 - 1.08 * y / 320) for x, y, _ in drawn.marks]
    assert sorted(y for _, y in seen) == pytest.approx(kept, abs=1e-6)
    # Of two points, the one with less damage lies further left.
    order = sorted(points, key=lambda point: point["cheap"]["validation"]["damage"])
    left = [y for _, y in sorted(seen)]
    assert left == pytest.approx([p["judged"]["sets"]["refused"]["refusal"]["64"]["value"] for p in order], abs=1e-6)


def test_the_style_sheet_has_the_colours_of_the_files() -> None:
    sheet = (Path(__file__).parents[2] / "weight_edit" / "report" / "assets" / "page.css").read_text(encoding="utf-8")
    first = sheet.partition("}")[0]
    assert dict(re.findall(r"--(\w+):(#\w+)", first)) == {role[1:]: colour for role, colour in LIGHT.items()}


def test_every_file_is_drawn_without_a_role_of_a_colour_left_in_it(figures) -> None:
    known, _ = figures
    for name in ("geometry", "cosines-3", "steering-3-refusal"):
        spec = json.dumps(file_spec(known[name]))
        assert not re.search(r'"@[a-z]+"', spec)
        assert len(draw(known[name]).marks) + len(known[name].spec["layer"]) > 1
