"""Edits of some models, baked in a process of its own: the SHA-256 of every file, and of sums by a library, as JSON.

`python -m tests.helpers.baked_digests OUT MODEL...`: which libraries and threads, the environment says.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from weight_edit.baking.bake import bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.plan.step import EditStep
from weight_edit.utils.fixed_decompositions import qr, svd
from weight_edit.utils.fixed_sums import dot, inner_products, product, row_sums, transposed_product

ONCE: dict[str, Any] = {"kind": "ablate"}
STEPS: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "one direction": [(1, ONCE)],
    "three, by layer": [(3, {**ONCE, "strength": 0.7, "layers": frozenset({1})})],
    "lengths kept": [(2, {"kind": "norm-preserving"})],
    "one after the other": [(2, ONCE), (3, {"kind": "reflect", "strength": 0.3}), (2, ONCE)],
}
"""Edits that need no model in memory: the number of directions of each step, and what is done along them."""


def rows(width: int, count: int, seed: int = 0) -> DirectionRows:
    """Directions, and one more that depends on them."""
    drawn = np.random.default_rng(seed).standard_normal((count, width))
    return DirectionRows(orthonormal_rows(np.concatenate([drawn, drawn.mean(axis=0, keepdims=True)])))


def steps(name: str, width: int) -> list[EditStep]:
    """The steps of one of `STEPS`."""
    return [EditStep(directions=rows(width, count, seed), **said) for seed, (count, said) in enumerate(STEPS[name])]


def digests(folder: Path) -> dict[str, str]:
    """File -> its SHA-256."""
    return {path.name: _digest(path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()}


def sums() -> dict[str, str]:
    """What is summed -> the digest of the result: by the order written down, and by whatever library numpy has."""
    left, right = np.random.default_rng(0).standard_normal((2, 40, 896))
    return {
        "inner": _digest(inner_products(left, right)),
        "over rows": _digest(transposed_product(right.T.copy(), left.T.copy())),
        "outer": _digest(product(left[:, :5].copy(), right[:5])),
        "one": _digest(np.float64(dot(left, right))),
        "narrow": _digest(row_sums(left.astype(np.float32))),
        "qr": _digest(np.concatenate(qr(right[:7].T))),
        "svd": _digest(svd(left[:7] - right[:7])[2]),
        "by a library": _digest(left @ right.T),
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).hexdigest()


def main() -> None:
    """As the module says."""
    out, *models = map(Path, sys.argv[1:])
    found: dict[str, Any] = {"sums": sums()}
    for model in models:
        width = json.loads((model / "config.json").read_text())["hidden_size"]
        for name in STEPS if len(models) < 2 or model.name != "quantised" else ["one direction"]:
            bake(model, steps(name, width), out / model.name / name)
            found[f"{model.name}, {name}"] = digests(out / model.name / name)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
