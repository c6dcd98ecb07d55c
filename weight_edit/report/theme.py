"""The look of the pictures: colours that the colour-blind tell apart, and the defaults of every chart.

Colours are named by what they are for (`@base`). The page's script makes properties of the style sheet of them, so
that a picture follows the page into dark and print; in files, `LIGHT` stands for them. They are of Okabe and Ito's
palette, darkened where thin lines need it, and never the only mark of a difference: shapes, dashes and labels say the
same.
"""

from collections.abc import Mapping
from typing import Any

INK, SOFT, LINE, PAPER = "@ink", "@soft", "@line", "@paper"
BASE, EDITED, CONTROL, THIRD, FOURTH = (
    "@base",
    "@edited",
    "@control",
    "@third",
    "@fourth",
)
SERIES = (BASE, EDITED, THIRD, FOURTH, CONTROL)
SHAPES = ("circle", "diamond", "square", "triangle-up", "cross")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4])

LIGHT = {
    INK: "#1c1f23",
    SOFT: "#565d66",
    LINE: "#dfe2e6",
    PAPER: "#ffffff",
    BASE: "#0067a5",
    EDITED: "#c04a00",
    CONTROL: "#6b7280",
    THIRD: "#00795a",
    FOURTH: "#9b3f7d",
}
"""Role -> its colour on the light page, as `page.css` has it."""
CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": "-apple-system, BlinkMacSystemFont, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', "
    "sans-serif",
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": LINE,
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 8,
    },
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleBaseline": "bottom", "titleY": -10},
    "legend": {
        "labelColor": INK,
        "titleColor": SOFT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolSize": 90,
        "symbolOpacity": 1,
        "labelLimit": 260,
    },
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": SOFT},
}


def in_light(spec: Any) -> Any:
    """A specification with the colours of the light page, for files; its data stay as they are."""
    if isinstance(spec, Mapping):
        return {key: value if key == "values" else in_light(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [in_light(value) for value in spec]
    return LIGHT.get(spec, spec) if isinstance(spec, str) else spec
