"""A GGUF file through llama.cpp's server against the folder that it was made from or into, on real prompts.

    python benchmarks/gguf_files.py FILE.gguf FOLDER PROMPTS [PROMPTS ...] [--limit N] [--tokens N] [--dtype NAME]

Needs `llama-server` (`make stacks`). Told are the wall times of both, how many verdicts of `phrases` agree, with the
table of both, how many first tokens are equal, the divergence of the first token (a lower bound) and how many answers
are the same text. No prompt and no answer is printed.
"""

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path

from weight_edit.evaluation.first_token import first_token_logprobs, least_divergence, top_tokens
from weight_edit.evaluation.gguf.program import find_program
from weight_edit.evaluation.gguf.served import ServedGguf
from weight_edit.evaluation.registry import judge_specs
from weight_edit.evaluation.target import ModelTarget
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import load
from weight_edit.utils.progress import set_quiet


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("folder")
    parser.add_argument("prompts", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=16, help="prompts of each file")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    parser.add_argument("--dtype", default="auto", help="of the folder's weights")
    options = parser.parse_args()
    set_quiet(True)
    program = find_program()
    if program is None:
        raise SystemExit("there is no llama-server; `make stacks` builds one")
    sets = {
        file.stem: [line for line in file.read_text(encoding="utf-8").splitlines() if line][: options.limit]
        for file in options.prompts
    }
    texts = [text for some in sets.values() for text in some]

    begun = time.perf_counter()
    with ServedGguf(options.file, program) as served:
        served.replies(texts[:1], max_new_tokens=1, description=None)
        started = time.perf_counter() - begun
        begun = time.perf_counter()
        top = served.top_tokens(texts, max_new_tokens=options.tokens)
        there = served.spoken(texts, max_new_tokens=options.tokens, lengths=(), description=None)
        seconds = time.perf_counter() - begun

    begun = time.perf_counter()
    model = load(options.folder, dtype=options.dtype)
    chat = ChatFormat(model.tokenizer)
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    here = ModelTarget(model, chat).spoken(texts, max_new_tokens=options.tokens, lengths=(), description=None)
    spent = time.perf_counter() - begun
    named = top_tokens(first_token_logprobs(model, PromptSet.of("p", texts), chat), model.tokenizer)

    (judge,) = judge_specs("phrases")
    verdicts = [[each.verdict.value for each in judge([one.reply for one in some])] for some in (here, there)]
    print(f"{options.file.name} against {Path(options.folder).name} ({model.dtype}), {options.tokens} tokens")
    print(f"llama.cpp: {started:.1f} s to start and load, {seconds:.1f} s for {len(texts)} answers")
    print(f"transformers: {loaded:.1f} s to load, {spent:.1f} s")
    at = 0
    for name, some in sets.items():
        pairs = list(zip(*(each[at : at + len(some)] for each in verdicts), strict=True))
        same = sum(one == other for one, other in pairs)
        print(f"{name}: {same} of {len(some)} verdicts agree")
        for (one, other), count in sorted(Counter(pairs).items()):
            print(f"  folder {one}, file {other}: {count}")
        at += len(some)
    answers = sum(one.reply.text == other.reply.text for one, other in zip(here, there, strict=True))
    lengths = [statistics.mean(each.tokens or 0 for each in some) for some in (here, there)]
    print(f"same text: {answers} of {len(texts)}; mean length {lengths[0]:.1f} and {lengths[1]:.1f} tokens")
    if top is not None:
        moved = least_divergence(named, top)
        print(f"equal first tokens: {moved.agreement.count} of {len(texts)}; KL at least {moved.mean:.4f} nats")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
