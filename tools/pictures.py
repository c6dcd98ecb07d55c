"""Draw the pictures of README and documents from real runs of the embedded model: `make pictures`.

    python tools/pictures.py [FOLDER]

The runs lie in FOLDER, runs/pictures by default; one that is there is taken up, and what is done in it is not done
again. Nothing else goes into the pictures than what these runs kept.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import picture

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
RUNS = {
    "strength": ("refusal-direction", "--set", "studies.0.options.strengths=[0.2,0.4,0.5,0.6,0.8,1]"),
    "organism": ("organism",),
}
"""Name of a run's folder -> the recipe, with what is set in it."""

STRENGTH = "strength.svg"
FIGURES = {"separation.svg": ("organism", "separation.svg")}
"""Picture -> the run and the figure of its report that it is."""


def command(name: str, folder: Path) -> list[str]:
    """The command that makes a run, or goes on with it."""
    recipe, *settings = RUNS[name]
    out = folder / name
    resume = ["--resume"] if (out / "run.json").is_file() else []
    return [sys.executable, "-m", "weight_edit", "run", recipe, *settings, "--out", str(out), *resume]


def main(folder: Path) -> None:
    """Make the runs, and draw the pictures from them."""
    for name in RUNS:
        subprocess.run(command(name, folder), cwd=ROOT, check=True)
    picture.draw(picture.rows_of(folder / "strength"), IMAGES / STRENGTH)
    for name, (run, figure) in FIGURES.items():
        shutil.copyfile(folder / run / "report/figures" / figure, IMAGES / name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs/pictures").resolve())
