"""Tables as CSV and JSON, and figures as PNG, in a run's folder."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import whole_file, write_whole
from weight_edit.utils.json import json_safe


def write_table(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `NAME.csv` and `NAME.json` with the same rows.

    Columns are in the order in which they first come.

    Args:
        rows: plain values; a missing or unknown one is an empty cell.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    folder.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    write_whole(folder / f"{name}.csv", lines.getvalue())
    text = json.dumps(json_safe([dict(row) for row in rows]), indent=2, allow_nan=False)
    write_whole(folder / f"{name}.json", text + "\n")


@contextmanager
def figure(folder: Path, name: str, *, size: tuple[float, float] = (6.0, 4.0), panels: int = 1) -> Iterator[Any]:
    """Draw `NAME.png` on matplotlib axes; several panels come as an array."""
    import matplotlib

    # No display is needed, and none may be there.
    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    drawing = Figure(figsize=size, layout="constrained")
    axes = drawing.subplots(1, panels)
    yield axes
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{name}.png") as file:
        drawing.savefig(file, format="png", dpi=130, metadata={"Software": None})


def colour(number: int, count: int) -> str:
    """One of `count` colours, all different up to twenty."""
    import matplotlib

    if count <= 10:
        return f"C{number}"
    # The strong colours first, then the pale ones of the same hues.
    red, green, blue, _ = matplotlib.colormaps["tab20"]((2 * number + number // 10) % 20)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return "" if value is None else value
