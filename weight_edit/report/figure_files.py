"""The pictures of a page as files: SVG and PNG, as on the light page."""

from collections.abc import Sequence
from pathlib import Path

from weight_edit.report.figure import Figure
from weight_edit.report.theme import CONFIG, LIGHT, PAPER, in_light

FIGURES = "figures"
_WIDTH, _SCALE = 720, 2


def write_figures(folder: Path, figures: Sequence[Figure]) -> list[str]:
    """Write each picture twice; returns the files' names, relative to the folder."""
    import vl_convert

    names: list[str] = []
    if figures:
        (folder / FIGURES).mkdir()
    for figure in figures:
        svg = vl_convert.vegalite_to_svg(file_spec(figure), allowed_base_urls=[])
        (folder / FIGURES / f"{figure.name}.svg").write_text(svg, encoding="utf-8")
        (folder / FIGURES / f"{figure.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=_SCALE))
        names += [f"{FIGURES}/{figure.name}.svg", f"{FIGURES}/{figure.name}.png"]
    return names


def file_spec(figure: Figure) -> dict[str, object]:
    """A picture's specification as it is drawn into a file."""
    own = figure.spec.get("usermeta") or {}
    width = min(_WIDTH, own.get("widest", _WIDTH))
    spec = {
        **figure.spec,
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {**CONFIG, "background": LIGHT[PAPER], "padding": 12},
    }
    if own.get("square"):
        spec["height"] = int(min(width * 0.8, own["square"]))
    return dict(in_light(spec))
