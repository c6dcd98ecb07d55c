"""Draw the README's picture from a run: what an edit gains and costs, against its strength.

    python tools/picture.py RUN docs/images/strength.svg

Reads the table that the recipe's sweep wrote, and nothing else. The same table gives the same file, byte for byte.
`tools/pictures.py` makes the run.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

FOUND, RANDOM = "main", "random"
LINES = (
    (FOUND, "refusal", "refused requests that are refused", "#c44e52", "-"),
    (RANDOM, "refusal", "the same, with a random direction", "#c44e52", ":"),
    (FOUND, "helpful", "refused requests that get their known answer", "#55a868", "-"),
    (FOUND, "exact", "ordinary requests answered exactly right", "#4c72b0", "-"),
)
"""Direction, column of the table, label, colour, style."""

Row = Mapping[str, Any]


def rows_of(run: Path) -> list[Row]:
    """The rows of the one sweep of a run, the unedited model first."""
    (table,) = run.glob("studies/*/sweep.json")
    return list(json.loads(table.read_text(encoding="utf-8")))


def curve(rows: Sequence[Row], directions: str) -> list[Row]:
    """The unedited model at strength 0, then a direction's rows by strength."""
    return sorted((row for row in rows if row["directions"] in ("none", directions)), key=lambda row: row["strength"])


def draw(rows: Sequence[Row], out: Path) -> None:
    """Write the picture; bars are 95% Wilson intervals."""
    # Text stays text, and nothing in the file changes from one call to the next.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "weight_edit", "font.size": 9}):
        picture = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = picture.subplots()
        for directions, column, label, colour, style in LINES:
            points = curve(rows, directions)
            up = [point[column] for point in points]
            low = [point[column] - point[f"{column}_low"] for point in points]
            high = [point[f"{column}_high"] - point[column] for point in points]
            across = [point["strength"] for point in points]
            drawn = axes.errorbar(across, up, yerr=(low, high), label=label, color=colour, linestyle=style, capsize=2)
            drawn.lines[0].set_marker("o")
        axes.set_xlabel("strength of the ablation (hooks on the embedded model)")
        axes.set_ylabel("rate")
        axes.set_ylim(-0.03, 1.03)
        axes.spines[["top", "right"]].set_visible(False)
        picture.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(rows_of(Path(sys.argv[1])), Path(sys.argv[2]))
