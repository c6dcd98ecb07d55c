"""Build, fill, run and round-trip a sample: what the tests do for some families.

For all of them, by hand: `PYTHONPATH=. python tests/catalogue/samples_run.py`."""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from weight_edit.anatomy.narrow.refused_kinds import refuse_kinds
from weight_edit.anatomy.narrow.small import build, randomise
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.entries import entries
from weight_edit.inspection.catalogue.samples import published_config, sample_config, variants

MULTIMODAL = ("git", "phi4_multimodal")
"""Text models with towers beside them in one config, without a nested text config."""


@dataclass(frozen=True)
class Ran:
    """What a sample's run gave: logits (2, 32, vocabulary), the largest hidden value, what differs after the disk."""

    model: nn.Module
    config: Any
    logits: Tensor
    largest: float
    differs: float


def ids() -> Tensor:
    return torch.randint(3, 90, (2, 32), generator=torch.Generator().manual_seed(1))


def composite(config: Any) -> bool:
    """Whether a config holds its language model's config inside."""
    try:
        return config.get_text_config() is not config or config.model_type in MULTIMODAL
    except ValueError:
        # Of several, and it does not say which.
        return True


def run(model_type: str, variant: str | None = None) -> Ran:
    """A sample's logits, and how much they differ after a way through the disk."""
    config = sample_config(model_type, variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = build(config)
    randomise(model, 0)
    largest = 0.0

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            largest = max(largest, float(first.abs().max()))

    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1].isdigit():
            module.register_forward_hook(watch)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        # Saved before it runs: RWKV rescales its parameters in place when it is first run.
        model.save_pretrained(folder)
        logits = model(input_ids=ids(), use_cache=False).logits
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        differs = float((again(input_ids=ids(), use_cache=False).logits - logits).abs().max())
    return Ran(model, config, logits, largest, differs)


def main() -> None:
    counts: dict[str, int] = {}
    for model_type in (entry.model_type for entry in entries() if "text" in entry.tasks):
        real = published_config(model_type)
        reason = refuse_kinds(real) or ("is a composite" if composite(real) else None)
        if reason is not None:
            counts[reason] = counts.get(reason, 0) + 1
            print(f"{model_type:28} {reason}")
            continue
        for variant in (None, *variants(model_type)):
            name = model_type if variant is None else f"{model_type} ({variant})"
            start = time.monotonic()
            try:
                ran = run(model_type, variant)
            except (UnsupportedError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
                kind, told = "fails", str(error).splitlines()[0]
            else:
                finite = bool(torch.isfinite(ran.logits).all())
                kind = "ran" if finite and ran.differs < 1e-5 else "wrong"
                told = f"largest {ran.largest:.1f}, after the disk {ran.differs:.1e}"
            counts[kind] = counts.get(kind, 0) + 1
            print(f"{name:44} {kind:6} {time.monotonic() - start:5.2f} s  {told}", flush=True)
    print(counts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
