"""What else one could do: edit the loaded model and save it, or walk the shards with torch; each as a user would.

`python benchmarks/alternatives.py transformers|loop BASE DIRECTION OUT`: the same edit as `weight-edit bake`.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def writes(name: str) -> bool:
    """Whether a tensor of a Llama writes to the residual stream."""
    return name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight"))


def ablated(name: str, weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The weight without its component along the rows, computed in float32."""
    wide = weight.float()
    if name.endswith("embed_tokens.weight"):
        return (wide - (wide @ rows.T) @ rows).to(weight.dtype)
    return (wide - rows.T @ (rows @ wide)).to(weight.dtype)


def with_transformers(base: Path, rows: torch.Tensor, out: Path) -> None:
    """Load in bfloat16, edit in place, save_pretrained."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, low_cpu_mem_usage=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if writes(name):
                parameter.copy_(ablated(name, parameter, rows))
    model.save_pretrained(out, max_shard_size="500MB")


def with_a_loop(base: Path, rows: torch.Tensor, out: Path) -> None:
    """Shard by shard: open, edit, save; other files are copied."""
    out.mkdir()
    for path in sorted(base.iterdir()):
        if path.suffix != ".safetensors":
            shutil.copy(path, out)
            continue
        with safe_open(path, "pt") as shard:
            metadata = shard.metadata()
            tensors = {}
            for name in shard.keys():  # noqa: SIM118
                tensor = shard.get_tensor(name)
                tensors[name] = ablated(name, tensor, rows) if writes(name) else tensor
        save_file(tensors, out / path.name, metadata=metadata)


def main() -> None:
    """As the module says."""
    kind, base, direction, out = sys.argv[1:]
    rows = load_file(direction)["direction"]
    {"transformers": with_transformers, "loop": with_a_loop}[kind](Path(base), rows, Path(out))


if __name__ == "__main__":
    main()
