"""Every edit on one random family of each kind: how far hooks, baked weights, adapter and the papers' hooks lie apart.

`PYTHONPATH=.:tests python benchmarks/edit_faces.py`. Largest differences of logits in float32, beside the size of the
effect where weights cannot be exact. An edit that a family cannot have is named with the reason.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.helpers.edit_kinds import EDITS, compare, compare_adapter, directions
from tests.helpers.families import save_family
from tests.helpers.family_models import load, logits
from weight_edit.baking.bake import steps_of
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.errors import WeightEditError
from weight_edit.hub.source import resolve
from weight_edit.plan.hooks import published_hooks
from weight_edit.runtime.hooks import hooked
from weight_edit.utils.progress import set_quiet

FAMILIES = ("llama", "gemma2", "gpt2", "mixtral", "gptj")
CASES: dict[str, dict[str, Any]] = {
    **{name: {"kind": name, **options} for name, options in EDITS.items()},
    "add --at 1": {"kind": "add", "at": (1,)},
    "reflect --at 1": {"kind": "reflect", "at": (1,)},
}


def published(base: Path, out: Path, options: dict[str, Any], embeddings: str) -> str:
    """How far the baked weights are from the edit as papers hook it, and the size of the edit's effect."""
    steps = steps_of(directions(centred=True), **options)
    plan = prepare(resolve(base), steps, EditOptions(embeddings)).plan
    hooks = published_hooks(plan)
    if hooks is None:
        return ""
    model = load(base)
    plain = logits(model)
    with hooked(model, hooks):
        wanted = logits(model)
    return f"{(logits(load(out)) - wanted).abs().max():.0e} of {(wanted - plain).abs().max():.2g}"


def tried(work: Any) -> str:
    """A figure, or why there is none."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = work()
    except WeightEditError as error:
        return f"no: {str(error).split(';')[0][:60]}"
    return found if isinstance(found, str) else f"{found:.0e}"


def main() -> int:
    """Print the table."""
    set_quiet(True)
    torch.set_num_threads(1)
    print("| edit | family | weights - hooks | adapter - hooks | weights - papers' hooks |\n|---|---|---|---|---|")
    for name, options in CASES.items():
        embeddings = "untie" if name.startswith("reflect --at") else "both"
        for family in FAMILIES:
            with tempfile.TemporaryDirectory() as folder:
                base, out, lora = (Path(folder) / each for each in ("base", "out", "lora"))
                with contextlib.redirect_stderr(io.StringIO()):
                    save_family(family, base)
                steps = steps_of(directions(centred=True), **options)
                cells = [
                    tried(lambda: compare(base, out, steps, embeddings)[0]),  # noqa: B023
                    tried(lambda: compare_adapter(base, lora, steps, embeddings)[0]),  # noqa: B023
                    tried(lambda: published(base, out, options, embeddings)) if out.exists() else "",  # noqa: B023
                ]
            print(f"| {name} | {family} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
