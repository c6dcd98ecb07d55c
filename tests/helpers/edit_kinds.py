"""Every kind of edit, and how far its hooks, its weights and its adapter are from one another."""

from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from tests.helpers.family_models import load, logits
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.hub.source import resolve
from weight_edit.plan.hooks import plan_hooks
from weight_edit.plan.step import EditStep
from weight_edit.runtime.hooks import hooked

WIDTH = 64
EDITS: dict[str, dict[str, Any]] = {
    "ablate": {},
    "ablate-part": {"kind": "ablate", "strength": 0.4},
    "ablate-kernel": {"kind": "ablate", "kernel": {"attention": {"max": 1.2, "width": 0.4}, "mlp": {"position": 0.2}}},
    "ablate-by-layer": {
        "kind": "ablate",
        "kernel": {"attention": [0.3, 0.0, 1.7], "mlp": [1.2, 0.6, 2.0], "embedding": 0.8},
    },
    "norm-preserving-by-layer": {"kind": "norm-preserving", "kernel": {"mlp": [1.3, 0.4, 0.0], "embedding": 0.5}},
    "reflect": {},
    "affine": {"options": {"enter": "embedding"}},
    "affine-shifted": {"kind": "affine", "options": {"enter": "embedding", "toward": "target", "shift": 0.5}},
    "erase": {"options": {"enter": "embedding"}},
    "norm-preserving": {},
    "add": {"at": (0,)},
}


def directions(k: int = 2, seed: int = 11, centred: bool = False) -> DirectionRows:
    """Random ones, with all that edits may need beside them; the eraser is oblique."""
    draw = np.random.default_rng(seed)
    numbers = draw.standard_normal((k, WIDTH))
    rows = orthonormal_rows(numbers - numbers.mean(axis=1, keepdims=True) if centred else numbers)
    left = np.linalg.pinv(rows @ (np.eye(WIDTH) + 0.1 * np.diag(draw.random(WIDTH)))).T
    dual = np.linalg.solve(left @ rows.T, left)
    mean, other = draw.standard_normal((2, WIDTH))
    tensors = {"left": dual, "right": rows, "mean": mean, "baseline_mean": mean, "target_mean": other}
    return DirectionRows(rows, {"layer": 1}, {**tensors, "vector": 2 * draw.standard_normal(WIDTH)})


def compare(base: Path, out: Path, steps: list[EditStep], embeddings: str = "both") -> tuple[float, float]:
    """Largest difference of logits between hooks and weights, and between base and hooks."""
    bake(base, steps, out, embeddings=embeddings)
    model = load(base)
    plan = prepare(resolve(base), steps, EditOptions(embeddings)).plan
    plain = logits(model)
    with hooked(model, plan_hooks(plan, lambda name: model.get_parameter(name).detach())):
        wanted = logits(model)
    return float((logits(load(out)) - wanted).abs().max()), float((wanted - plain).abs().max())


def compare_adapter(base: Path, out: Path, steps: list[EditStep], embeddings: str = "both") -> tuple[float, float]:
    """The same of an adapter on the unedited model; it leaves a tied unembedding as it is until it is merged."""
    adapter(base, steps, out, embeddings=embeddings)
    model = load(base)
    plan = prepare(resolve(base), steps, EditOptions(embeddings), written=False).plan
    plain = logits(model)
    with hooked(model, plan_hooks(plan, lambda name: model.get_parameter(name).detach(), tied=False)):
        wanted = logits(model)
    adapted = PeftModel.from_pretrained(model, str(out)).eval()
    return float((logits(adapted) - wanted).abs().max()), float((wanted - plain).abs().max())
