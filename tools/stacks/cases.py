"""The edits of a model that stacks are asked about: baked by this package, each with what PEFT is to load for it.

Each stands in a folder whose name has a digest of the base's files, of what was asked for and of the package's own
sources: what is found there was made of just these, and what is stale is not found.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from stacks.copies import in_float32, is_rounded
from stacks.suspects import reference
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.errors import WeightEditError
from weight_edit.proofs.cache import key_of

EDITS: Mapping[str, Mapping[str, Any]] = {
    "ablation": {},
    "ablation, untied": {"embeddings": "untie"},
    "addition": {"kind": "add", "options": {"length": "unit"}},
}
"""Name in the table -> arguments of `bake`; an addition goes in front of the second block."""
DIRECTIONS = 4
"""How many directions an ablation takes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model or an edit of it.

    Attributes:
        name: `base`, or of the edit.
        model: the folder or GGUF file that stacks load; None where the edit is refused.
        adapter: the same edit for PEFT; None for the base, and where it is refused.
        refused: why `bake` refuses it.
        no_adapter: why there is no adapter.
        asked: arguments of `bake` beside the directions; None of the base.
        when_merged: whether the adapter is this edit once it is merged and not before, as where embeddings are tied.
    """

    name: str
    model: Path | None
    adapter: Path | None = None
    refused: str | None = None
    no_adapter: str | None = None
    asked: Mapping[str, Any] | None = None
    when_merged: bool = False


def cases(base: Path, work: Path, *, edits: Mapping[str, Mapping[str, Any]] = EDITS, seed: int = 0) -> list[Case]:
    """A base and its edits along random directions, in folders below `work`.

    Args:
        base: a folder or a GGUF file.
        seed: of the directions.
    """
    model = reference(base)
    embedding = model.get_input_embeddings().weight.detach()
    tied = torch.equal(embedding, model.get_output_embeddings().weight)
    # As long as four rows of the embedding, so that answers change.
    length = 4 * float(embedding.norm(dim=1).mean())
    found = [Case(name="base", model=base)]
    for name, arguments in edits.items():
        if "untie" in arguments.values() and not tied:
            continue
        is_addition = arguments.get("kind") == "add"
        asked = {**arguments, **({"at": 1, "strength": length} if is_addition else {})}
        rows = _directions(embedding, 1 if is_addition else DIRECTIONS, seed)
        folder = work / f"{name.replace(', ', '-')}-{digest(base, asked, rows.tobytes())[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"direction": rows}, folder / "directions.safetensors")
        found.append(_case(base, folder, asked, name=name, tied=tied))
    return found


def _directions(embedding: torch.Tensor, count: int, seed: int) -> np.ndarray:
    """Random mixtures of the embedding's rows, orthonormal: (count, width) float32.

    They lie where the stream has its numbers, so that answers change, of a trained model, too.
    """
    mixed = np.random.default_rng(seed).standard_normal((count, len(embedding))) @ embedding.double().numpy()
    return np.ascontiguousarray(np.linalg.qr(mixed.T)[0].T, dtype=np.float32)


def digest(base: Path, *asked: object) -> str:
    """SHA-256, in hexadecimal, of a base's files, of what is asked for, and of what the package's own bakes follow."""
    files = sorted(each for each in base.rglob("*") if each.is_file()) if base.is_dir() else [base]
    parts = [repr(asked).encode(), (key_of() or "").encode()]
    for file in files:
        with file.open("rb") as opened:
            parts += [file.name.encode(), hashlib.file_digest(opened, "sha256").digest()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _case(base: Path, folder: Path, arguments: Mapping[str, Any], *, name: str, tied: bool) -> Case:
    directions, out, made = folder / "directions.safetensors", folder / "edited", folder / "adapter"
    try:
        if not out.exists():
            bake(str(base), directions, out, **arguments)
    except WeightEditError as error:
        return Case(name=name, model=None, refused=str(error), asked=arguments)
    if base.is_file():
        return Case(name=name, model=out / base.name, no_adapter="none of a GGUF file", asked=arguments)
    try:
        if not made.exists():
            adapter(str(base), directions, made, **arguments)
    except WeightEditError as error:
        return Case(name=name, model=out, no_adapter=str(error), asked=arguments)
    # An addition leaves the embedding as it is, so that nothing has to be merged into what is tied to it.
    both = tied and "embeddings" not in arguments and arguments.get("kind") != "add"
    return Case(name=name, model=out, adapter=made, asked=arguments, when_merged=both)


def unrounded(base: Path, case: Case) -> Path | None:
    """The same edit of the base in float32, beside it: what it is before it is rounded to the base's dtype.

    Returns:
        the folder; None where the base is in float32, or the case is no edit of a folder.
    """
    if base.is_file() or case.model is None or case.asked is None or not is_rounded(base):
        return None
    out = case.model.with_name("unrounded")
    if not out.exists():
        with tempfile.TemporaryDirectory() as scratch:
            copy = in_float32(base, Path(scratch) / base.name)
            bake(str(copy), case.model.with_name("directions.safetensors"), out, **case.asked)
    return out
