"""Adapters against bakes: each family and kind of edit, as PEFT loads, merges, saves and loads them again.

    python benchmarks/adapters.py [FAMILY ...]

A row for each: the largest difference of logits between the adapter on its base and the baked model, not merged,
merged, and merged, saved and loaded again; `moved` is what the edit does, `noise` what the baked model's logits do at
most, of several times, when each of its weights is rounded once more to float32, by chance: no figure can be held to
less. Or what it was refused with. Families are small random models in float32 (`tests/helpers/families.py`), mixtures
the samples of the catalogue.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peft import PeftModel

from tests.helpers.edit_kinds import directions
from tests.helpers.families import FAMILIES, TIED, save_family
from tests.helpers.family_models import ADAPTABLE, load, logits
from weight_edit.adapters.adapter import adapter
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.baking.bake import bake, steps_of
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import WeightEditError
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.plan.step import EditStep
from weight_edit.utils import progress

MIXTURES = (
    *("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v2", "deepseek_v3", "llama4_text", "olmoe"),
    *("granitemoe", "phimoe", "glm4_moe", "ernie4_5_moe", "dbrx", "jamba", "hunyuan_v1_moe", "minimax", "gemma4_text"),
)
DENSE = tuple(dict.fromkeys((*FAMILIES, *TIED, *ADAPTABLE, "gptj", "gptj-tied", "opt", "bloom", "falcon", "mamba")))

ROUNDINGS = 24
"""How often the noise is drawn: of Jamba, draws are apart by a factor of six."""


def several() -> list[EditStep]:
    """Two ablations and a partial one, composed."""
    first, second = directions(1, seed=3), directions(1, seed=4)
    return [EditStep(directions=first), EditStep(directions=second, strength=0.5), EditStep(directions=directions(2))]


EDITS: dict[str, dict[str, Any]] = {
    "ablate": {},
    "partial": {"strength": 0.4, "embeddings": "untie"},
    "several": {"steps": several(), "embeddings": "untie"},
    "affine": {"kind": "affine", "options": {"enter": "embedding"}},
    "reflect at 1": {"kind": "reflect", "at": (1,), "embeddings": "untie"},
    "norm-preserving, rank 16": {"kind": "norm-preserving", "rank": 16, "embeddings": "untie"},
}


def save(family: str, folder: Path) -> Path:
    """A small model of a family, or of a mixture."""
    if family in DENSE and family not in ("opt", "bloom", "falcon", "mamba"):
        return save_family(family, folder)
    narrow_model(sample(family)).save_pretrained(folder)
    return folder


def row(family: str, name: str, base: Path, place: Path) -> str:
    """The figures of one edit of a family."""
    given = dict(EDITS[name])
    mode, rank = given.pop("embeddings", "both"), given.pop("rank", None)
    width = load(base).get_input_embeddings().weight.shape[1]
    found: DirectionRows = directions() if width == 64 else _wider(width)
    steps = given.pop("steps", None) or steps_of(found, **given)
    wanted = None
    try:
        bake(base, steps, place / "out", embeddings=mode)
        wanted = served = logits(load(place / "out"))
        if mode == "both":
            # A tied unembedding goes with the embedding once they are merged, not before.
            bake(base, steps, place / "apart", embeddings="untie")
            served = logits(load(place / "apart"))
        made = adapter(base, steps, place / "lora", embeddings=mode, rank=rank)
        model = PeftModel.from_pretrained(load(base), str(place / "lora")).eval()
        figures = [f"{(logits(model) - served).abs().max():.1e}"]
        try:
            merged = model.merge_and_unload()
            figures.append(f"{(logits(merged) - wanted).abs().max():.1e}")
            merged.save_pretrained(place / "merged")
            figures.append(f"{(logits(load(place / 'merged')) - wanted).abs().max():.1e}")
        except NotImplementedError as error:
            figures += [str(error)[:60], ""]
        figures.append(f"{(logits(load(base)) - wanted).abs().max():.1e}")
        noises = [(logits(rounded_again(load(place / "out"), seed)) - wanted).abs().max() for seed in range(ROUNDINGS)]
        figures.append(f"{max(noises):.1e}")
        return " | ".join(
            [*figures, f"rank {made.rank}" + (f", error {made.truncation['error']:.2f}" if made.truncation else "")]
        )
    except WeightEditError as error:
        return f"{'' if wanted is None else 'adapter '}refused: {str(error)[:150]}"
    except Exception as error:  # noqa: BLE001
        return f"FAILED {type(error).__name__}: {str(error)[:150]}"


def rounded_again(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model, each weight moved by up to half of the distance between neighbouring numbers of float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.5
            parameter.copy_((parameter.double() * (1 + drawn * torch.finfo(torch.float32).eps)).float())
    return model


def _wider(width: int) -> DirectionRows:
    generator = torch.Generator().manual_seed(5)
    draw = torch.linalg.qr(torch.randn(width, 2, generator=generator))[0].T
    return DirectionRows(draw.numpy())


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    families = sys.argv[1:] or [*DENSE, *MIXTURES]
    print("| family | tied | edit | not merged | merged | saved and loaded | moved | noise | |")
    print("|---|---|---|---|---|---|---|---|---|")
    with progress.quieted(True):
        for family in families:
            with tempfile.TemporaryDirectory() as folder:
                base = save(family, Path(folder) / "base")
                tied = load(base).config.tie_word_embeddings
                for index, name in enumerate(EDITS):
                    place = Path(folder) / str(index)
                    place.mkdir()
                    print(
                        f"| {family} | {'yes' if tied else 'no'} | {name} | {row(family, name, base, place)} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
