"""The edits of a model that stacks are asked about: baked by this package, each with what PEFT is to load for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stacks.suspects import reference
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.errors import WeightEditError

EDITS: Mapping[str, Mapping[str, Any]] = {
    "ablation": {},
    "ablation, untied": {"embeddings": "untie"},
    "addition": {"kind": "add", "options": {"length": "unit"}},
}
"""Name in the table -> arguments of `bake`; an addition goes in front of the second block."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model or an edit of it.

    Attributes:
        name: `base`, or of the edit.
        folder: what stacks load; None where the edit is refused.
        adapter: the same edit for PEFT; None for the base.
        refused: why it is.
        when_merged: whether the adapter is this edit once it is merged and not before, as where embeddings are tied.
    """

    name: str
    folder: Path | None
    adapter: Path | None = None
    refused: str | None = None
    when_merged: bool = False


def cases(base: Path, work: Path, *, edits: Mapping[str, Mapping[str, Any]] = EDITS, seed: int = 0) -> list[Case]:
    """A base and its edits along one random direction, in folders below `work`.

    Args:
        base: a folder.
    """
    model = reference(base)
    width = model.config.get_text_config().hidden_size
    tied = model.config.get_text_config().tie_word_embeddings
    row = np.random.default_rng(seed).standard_normal((1, width)).astype(np.float32)
    directions = work / "directions.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    # As long as four rows of the embedding, so that answers change.
    scale = float(model.get_input_embeddings().weight.detach().norm(dim=1).mean())
    save_file({"direction": row / np.linalg.norm(row)}, directions)
    found = [Case(name="base", folder=base)]
    for name, arguments in edits.items():
        if "untie" in arguments.values() and not tied:
            continue
        more = {"at": 1, "strength": 4 * scale} if arguments.get("kind") == "add" else {}
        found.append(
            _case(base, directions, work / name.replace(", ", "-"), {**arguments, **more}, name=name, tied=tied)
        )
    return found


def _case(base: Path, directions: Path, out: Path, arguments: Mapping[str, Any], *, name: str, tied: bool) -> Case:
    try:
        if not out.exists():
            bake(str(base), directions, out, **arguments)
        made = out.with_name(f"{out.name}-adapter")
        if not made.exists():
            adapter(str(base), directions, made, **arguments)
    except WeightEditError as error:
        return Case(name=name, folder=out if out.exists() else None, refused=str(error))
    return Case(name=name, folder=out, adapter=made, when_merged=tied and not arguments.get("embeddings"))
