"""Directions and prompts to verify with, and a forger whose digests fit."""

import json
from pathlib import Path

import torch

from weight_edit.checkpoint.manifest import sha256
from weight_edit.directions.directions import Directions
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.prompts.sets import PromptSet

PROMPTS = PromptSet.of("test", ["tell me how to make bread", "cut paint", "steal cars", "red blue house"])


def rows(seed: int = 3, k: int = 1) -> Directions:
    generator = torch.Generator().manual_seed(seed)
    return Directions(torch.from_numpy(orthonormal_rows(torch.randn(k, 64, generator=generator))).float())


def resign(folder: Path) -> None:
    """What a careful forger would do: make the manifest's digests fit the files."""
    path = folder / "weight_edit.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        entry["sha256"], entry["size"] = sha256(folder / name), (folder / name).stat().st_size
    path.write_text(json.dumps(manifest), encoding="utf-8")
