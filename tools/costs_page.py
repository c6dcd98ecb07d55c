"""Write the table of docs/costs.md: what `weight-edit plan` says of models of known shapes, by their configs alone.

    python tools/costs_page.py

What stands between `<!-- costs: made by tools/costs_page.py -->` and `<!-- end -->` is made anew; all else stays.
The configs are made on the spot of the numbers below, which the models' publishers give; no weights, no tokenizer,
nothing is downloaded. Rates are given, so that the page does not depend on the machine that makes it.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from weight_edit.cli.entry import main
from weight_edit.cli.tables.costs import between
from weight_edit.costs.plan import CostPlan, plan_costs
from weight_edit.tables.amounts import amount, count
from weight_edit.utils.progress import duration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/costs.md"
PART = re.compile(r"(<!-- costs: made by tools/costs_page\.py -->\n).*?(<!-- end -->)", re.DOTALL)
FLOPS, DISK = 4e14, 3e9
PROMPTS = {"tokens": 48, "prefix_tokens": 24}
DEVICE = "cuda"

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Llama-3-8B": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "Llama-3-70B": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "Llama-4-Maverick": {
        "model_type": "llama4_text",
        "architectures": ["Llama4ForCausalLM"],
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "vocab_size": 202048,
        "tie_word_embeddings": False,
    },
    "Qwen3-Coder-480B": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 6144,
        "intermediate_size": 8192,
        "moe_intermediate_size": 2560,
        "num_hidden_layers": 62,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_experts": 160,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
}
"""Model -> its config, by the numbers that its publisher gives; all in bfloat16."""

SHOWN = "Llama-3-70B"


def planned(folder: Path, *, offload: bool) -> CostPlan:
    """The plan of a folder's config at the page's rates."""
    rates: dict[str, Any] = {"calibrate": False, "flops": FLOPS, "disk_rate": DISK, "device": DEVICE}
    return plan_costs(folder, offload=offload, **rates, **PROMPTS)


def write_configs(root: Path) -> dict[str, Path]:
    """A folder with config.json alone for each shape."""
    found = {}
    for name, shape in SHAPES.items():
        found[name] = root / name
        found[name].mkdir()
        (found[name] / "config.json").write_text(json.dumps({**shape, "dtype": "bfloat16"}), encoding="utf-8")
    return found


def row(name: str, inside: CostPlan, outside: CostPlan) -> str:
    """A line of the table."""
    size = inside.size
    part = size.unit_bytes if size.expert_bytes is not None else size.block_bytes
    seconds = outside.step("selection").seconds
    assert seconds is not None
    cells = (
        name,
        f"{count(size.parameters)} ({count(size.active)})",
        amount(size.checkpoint_bytes, "B"),
        f"{amount(size.block_bytes, 'B')} ({amount(part, 'B')})",
        between(inside.step("selection").flops),
        f"{duration(seconds.low)} to {duration(seconds.high)}",
        amount(inside.memory.on_device, "B"),
        amount(outside.memory.on_device, "B"),
        amount(inside.memory.total - inside.memory.on_device, "B"),
    )
    return f"| {' | '.join(cells)} |"


def printed(folder: Path) -> str:
    """What the command prints for a folder, as if it lay in the working directory."""
    words = [
        "weight-edit",
        "plan",
        folder.name,
        "--offload",
        "--device",
        DEVICE,
        "--flops",
        f"{FLOPS:.0e}",
        "--disk-rate",
        f"{DISK:.0e}",
    ]
    words = [re.sub(r"e\+0?(\d)", r"e\1", word) for word in words]
    words += [word for key, value in PROMPTS.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    said, before = io.StringIO(), Path.cwd()
    os.chdir(folder.parent)
    try:
        with (
            contextlib.redirect_stdout(said),
            mock.patch.object(sys, "argv", [*words, "--quiet"]),
            mock.patch.dict(os.environ, {"COLUMNS": "100"}),
        ):
            main()
    finally:
        os.chdir(before)
    lines = [line.rstrip() for line in said.getvalue().splitlines()]
    return "\n".join(["```text", f"$ {' '.join(words)}", *lines, "```"])


def table() -> str:
    """The part of the page that is made."""
    head = (
        "model",
        "parameters (active)",
        "checkpoint",
        "block (at once)",
        "FLOPs",
        "time",
        "in memory",
        "offloaded",
        "host",
    )
    with tempfile.TemporaryDirectory() as root:
        folders = write_configs(Path(root))
        rows = [
            row(name, planned(folder, offload=False), planned(folder, offload=True)) for name, folder in folders.items()
        ]
        shown = printed(folders[SHOWN])
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows, "", shown])


def made(text: str) -> str:
    """The page with its table made anew."""
    return PART.sub(lambda match: f"{match[1]}{table()}\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
