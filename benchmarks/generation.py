"""Greedy answers to real prompts: `generate` of the package against a plain batched `generate` of transformers.

    python benchmarks/generation.py MODEL FILE [FILE ...] [--limit N] [--tokens N] [--rows N] [--pairs N] [--dtype NAME]

The plain way takes the prompts in the order of their files, `--rows` at once, padded on the left. Both run in turn, in
one process. Told are answers per second, the ratio of times with its least and greatest, the same ratio of processor
time (which other processes disturb less), and how many answers are equal token for token. Where two are not, the margin
at the first token that differs is that of the two logits, in one pass over the prompt and what both have said, in the
model's dtype and in float32. No prompt and no answer is printed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timing import spread

from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.generation import end_tokens, generate
from weight_edit.runtime.loading import Model, load
from weight_edit.utils.progress import set_quiet


@dataclass(frozen=True)
class Run:
    """The time of one way over all prompts, and its answers' tokens."""

    seconds: float
    processor: float
    answers: list[tuple[int, ...]]


def timed(way: Callable[[], list[tuple[int, ...]]]) -> Run:
    """One run."""
    wall, processor = time.perf_counter(), time.process_time()
    answers = way()
    return Run(time.perf_counter() - wall, time.process_time() - processor, answers)


def plain(model: Model, prompts: Sequence[Sequence[int]], tokens: int, rows: int) -> list[tuple[int, ...]]:
    """What one writes with transformers alone."""
    ends = sorted(end_tokens(model))
    found = []
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        width = max(map(len, some))
        ids = torch.tensor([[model.pad_id] * (width - len(prompt)) + list(prompt) for prompt in some])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some])
        with torch.no_grad():
            output = model.model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=ends,
                pad_token_id=model.pad_id,
            )
        for row in output[:, width:].tolist():
            stop = next((index for index, token in enumerate(row) if token in ends), len(row))
            found.append(tuple(row[: stop + 1]))
    return found


def margin(model: Model, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]) -> float:
    """How far apart the logits are of the first tokens that differ, after what is common."""
    at = next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    ids = torch.tensor([[*prompt, *one[:at]]], device=model.device)
    with torch.no_grad():
        logits = model.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
    return abs(float(logits[one[at]] - logits[other[at]]))


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=32, help="prompts of each file")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    parser.add_argument("--rows", type=int, default=32, help="of the plain way's batches")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    set_quiet(True)
    model = load(options.model, dtype=options.dtype)
    chat = ChatFormat(model.tokenizer)
    texts = [line for file in options.files for line in file.read_text(encoding="utf-8").splitlines()[: options.limit]]
    prompts = [chat.encode(text) for text in texts]

    def ours() -> list[tuple[int, ...]]:
        return [answer.tokens for answer in generate(model, prompts, max_new_tokens=options.tokens)]

    def theirs() -> list[tuple[int, ...]]:
        return plain(model, prompts, options.tokens, options.rows)

    generate(model, prompts[:2], max_new_tokens=2)
    pairs: list[tuple[Run, Run]] = []
    for number in range(options.pairs):
        # Whoever is first in a pair is last in the next one.
        first, second = (theirs, ours) if number % 2 == 0 else (ours, theirs)
        runs = {first: timed(first), second: timed(second)}
        pairs.append((runs[theirs], runs[ours]))
        print(f"pair {number + 1}: {runs[theirs].seconds:.1f} s, {runs[ours].seconds:.1f} s", file=sys.stderr)

    lengths = [len(prompt) for prompt in prompts]
    said = [len(answer) for answer in pairs[0][1].answers]
    print(f"{options.model}: {model.dtype} on {model.device}, {torch.get_num_threads()} threads")
    print(f"prompts: {len(prompts)} of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all")
    early = sum(count < options.tokens for count in said)
    print(f"answers: {min(said)} to {max(said)} tokens, {sum(said)} in all; {early} ended before the limit")
    for index, name in enumerate(("plain", "ours")):
        print(f"{name}: {spread([len(prompts) / pair[index].seconds for pair in pairs])} answers/s")
    print(f"ratio of wall time: {spread([one.seconds / other.seconds for one, other in pairs])}")
    print(f"ratio of processor time: {spread([one.processor / other.processor for one, other in pairs])}")
    of_both = list(zip(prompts, pairs[0][0].answers, pairs[0][1].answers, strict=True))
    differing = [each for each in of_both if each[1] != each[2]]
    print(f"equal answers: {len(of_both) - len(differing)} of {len(of_both)}")
    if differing:
        print(f"margin where they part, {model.dtype}: {spread([margin(model, *each) for each in differing])}")
        model.model.float()
        print(f"margin where they part, float32: {spread([margin(model, *each) for each in differing])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
