"""Collecting activations: the usual way, the bare backbone on the same tokens, and ours.

    python benchmarks/activations.py MODEL FILE [FILE ...] [--limit N] [--rows N] [--rounds N] [--dtype NAME]

The usual way generates one token with all hidden states, in the order of the files, `--rows` prompts at once, padded on
the left. The bare backbone reads the same prompts sorted by length, with nothing attached. Ours keeps the stream at the
inputs of all blocks at the last five positions. All ways take turns in one process. Rates are of real tokens, without
padding, by processor time, which other processes disturb less; what reading the prompts' common prefix once saves is
told apart. No prompt is printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch

from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime import passes
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.batching import batches
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point
from weight_edit.runtime.prefix import common_prefix
from weight_edit.utils.progress import set_quiet

POSITIONS = (-1, -2, -3, -4, -5)


def usual(model: Model, prompts: Sequence[Sequence[int]], rows: int) -> None:
    """What notebooks do."""
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        width = max(map(len, some))
        ids = torch.tensor([[model.pad_id] * (width - len(prompt)) + list(prompt) for prompt in some])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some])
        with torch.no_grad():
            model.model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=1,
                do_sample=False,
                output_hidden_states=True,
                return_dict_in_generate=True,
                pad_token_id=model.pad_id,
            )


def bare(model: Model, prompts: Sequence[Sequence[int]], rows: int) -> None:
    """The backbone alone."""
    with torch.no_grad():
        for batch in batches(prompts, batch_size=rows, pad_id=model.pad_id):
            ids, mask = batch.ids.to(model.device), batch.mask.to(model.device)
            model.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)


def ours(model: Model, prompts: Sequence[Sequence[int]]) -> None:
    """What `find` does."""
    points = [Point("resid_pre", layer) for layer in range(model.anatomy.n_layers)]
    residuals(model, prompts, points, POSITIONS, description=None)


def seconds(way: Callable[[], None], model: Model) -> float:
    """Processor time of one run; on another device, time."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    start = clock()
    way()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=64, help="prompts of each file")
    parser.add_argument("--rows", type=int, default=32, help="of the other ways' batches")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    set_quiet(True)
    model = load(options.model, dtype=options.dtype)
    chat = ChatFormat(model.tokenizer)
    texts = [line for file in options.files for line in file.read_text(encoding="utf-8").splitlines()[: options.limit]]
    prompts = [chat.encode(text) for text in texts]
    tokens = sum(map(len, prompts))

    def without_prefix() -> None:
        with mock.patch.object(passes, "common_prefix", return_value=[]):
            ours(model, prompts)

    ways: dict[str, Callable[[], None]] = {
        "usual": lambda: usual(model, prompts, options.rows),
        "bare": lambda: bare(model, prompts, options.rows),
        "ours, no prefix": without_prefix,
        "ours": lambda: ours(model, prompts),
    }
    ours(model, prompts[:4])
    runs: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        # Each round begins with another way.
        names = list(ways)
        for name in names[number % 4 :] + names[: number % 4]:
            runs[name].append(seconds(ways[name], model))
    prefix = len(common_prefix(model, prompts, [5] * len(prompts)))
    print(f"{options.model}: {model.dtype} on {model.device}, {torch.get_num_threads()} threads")
    print(f"prompts: {len(prompts)}, {tokens} tokens, {prefix} of each in common")
    for name, found in runs.items():
        middle = statistics.median(found)
        print(f"{name}: {tokens / middle:.0f} tokens/s, {len(prompts) / middle:.1f} prompts/s")
    for name, other in (("ours, no prefix", "bare"), ("ours", "bare"), ("ours", "usual")):
        ratios = [b / a for a, b in zip(runs[name], runs[other], strict=True)]
        print(f"{name} against {other}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
