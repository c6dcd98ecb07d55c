"""Copies of a model's folder that say the same otherwise: with the earlier keys in its config, or in float32.

Transformers 4 wrote `rope_theta`; transformers 5 saves `rope_parameters` alone, which some stacks do not read.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def add_earlier_keys(file: Path) -> None:
    """Say in a config what its `rope_parameters` say in the earlier keys, too."""
    config = json.loads(file.read_text(encoding="utf-8"))
    ropes = config["rope_parameters"]
    config["rope_theta"] = ropes.get("full_attention", ropes)["rope_theta"]
    if "sliding_attention" in ropes:
        config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config["layer_types"].index("full_attention") + 1
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def with_earlier_keys(folder: Path, out: Path) -> Path:
    """A model's folder once more, with the earlier keys in its config."""
    shutil.copytree(folder, out)
    add_earlier_keys(out / "config.json")
    return out


def is_rounded(folder: Path) -> bool:
    """Whether a model is stored in fewer bits than float32, so that an edit of it is rounded to them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("dtype", config.get("torch_dtype")) in ("bfloat16", "float16")


def in_float32(folder: Path, out: Path) -> Path:
    """A model's folder once more, its tensors of fewer bits as the same numbers in float32."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors"))
    for file in folder.glob("*.safetensors"):
        tensors = {
            name: each.float() if each.dtype in (torch.bfloat16, torch.float16) else each
            for name, each in load_file(file).items()
        }
        save_file(tensors, out / file.name, metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2), encoding="utf-8")
    return out
