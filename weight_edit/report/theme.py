"""The look of the pictures: colours that the colour-blind tell apart, and the defaults of every chart.

Colours are names of the page's style sheet (`var(--base)`), so that a picture follows the page into dark and print; in
files the colours of the light page stand for them. They are of Okabe and Ito's palette, darkened where thin lines need
it, and never the only mark of a difference: shapes, dashes and labels say the same.
"""

from collections.abc import Mapping
from typing import Any

INK, SOFT, LINE, PAPER = "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)"
BASE, EDITED, CONTROL, THIRD, FOURTH = (
    "var(--base)",
    "var(--edited)",
    "var(--control)",
    "var(--third)",
    "var(--fourth)",
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
DARK = {
    INK: "#e8eaed",
    SOFT: "#a4abb5",
    LINE: "#363b43",
    PAPER: "#15181c",
    BASE: "#56b4e9",
    EDITED: "#f0883e",
    CONTROL: "#9aa2ad",
    THIRD: "#3fc79a",
    FOURTH: "#d99ac0",
}

CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', 'DejaVu Sans', sans-serif",
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
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleBaseline": "bottom"},
    "legend": {
        "labelColor": INK,
        "titleColor": SOFT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolSize": 90,
    },
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": SOFT},
}


def in_light(spec: Any) -> Any:
    """A specification with the colours of the light page, for files."""
    if isinstance(spec, Mapping):
        return {key: in_light(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [in_light(value) for value in spec]
    return LIGHT.get(spec, spec) if isinstance(spec, str) else spec


def style_sheet() -> str:
    """The colours as properties of the page, light and dark."""

    def listed(colours: Mapping[str, str]) -> str:
        return "".join(f"{name[4:-1]}:{colour};" for name, colour in colours.items())

    dark = listed(DARK)
    return (
        f":root{{{listed(LIGHT)}color-scheme:light}}"
        f"@media screen{{:root[data-theme=dark]{{{dark}color-scheme:dark}}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}color-scheme:dark}}}}"
    )
