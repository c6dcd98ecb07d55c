"""What a reader does with a picture: see some of its series alone, and look closer.

Both are Vega-Lite's own selections. In a file they do nothing, and the numbers are in the table behind the picture.
"""

from collections.abc import Mapping
from typing import Any

SERIES_HINT = "Click a name to see it alone, with Shift others beside it, an empty place for all."
ZOOM_HINT = "Turn the wheel with Ctrl to look closer, drag to move, double-click for the whole."

_FAINT = 0.12
_CHOSEN, _VIEW = "chosen", "view"


def with_choice(spec: Mapping[str, Any], field: str, *, by_legend: bool = False) -> dict[str, Any]:
    """A picture of several series of which those that are clicked stand out.

    Args:
        spec: of layers, the last of which is clicked where there is no legend.
        field: the series; layers without a colour by it stay as they are.
        by_legend: whether the legend is clicked.
    """
    chosen: dict[str, Any] = {"name": _CHOSEN, "select": {"type": "point", "fields": [field]}}
    drawn = [_fading(layer, field) for layer in spec["layer"]]
    if by_legend:
        # The first layer is the one whose legend is drawn; the others' are the same.
        drawn[0] = _asked(drawn[0], {**chosen, "bind": "legend"})
    else:
        drawn[-1] = _asked(drawn[-1], chosen)
    return _hinted({**spec, "layer": drawn}, SERIES_HINT)


def _fading(layer: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A layer whose marks are faint where others were chosen."""
    encoding = layer["encoding"]
    if encoding.get("color", {}).get("field") != field:
        return dict(layer)
    full = layer["mark"].get("opacity", 1)
    opacity = {"condition": {"param": _CHOSEN, "value": full}, "value": min(full, _FAINT)}
    return {**layer, "encoding": {**encoding, "opacity": opacity}}


def with_zoom(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A picture whose axes can be moved and drawn out.

    The wheel alone scrolls the page, as does a finger.
    """
    view = {
        "name": _VIEW,
        "bind": "scales",
        "select": {
            "type": "interval",
            "zoom": "wheel![event.ctrlKey || event.metaKey]",
            "translate": "[mousedown, window:mouseup] > window:mousemove!",
        },
    }
    first, *others = spec["layer"]
    return _hinted({**spec, "layer": [_asked(first, view), *others]}, ZOOM_HINT)


def _asked(layer: Mapping[str, Any], parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {**layer, "params": [*layer.get("params", []), parameter]}


def _hinted(spec: Mapping[str, Any], hint: str) -> dict[str, Any]:
    own = spec.get("usermeta") or {}
    return {**spec, "usermeta": {**own, "hint": " ".join(filter(None, (own.get("hint"), hint)))}}
