"""What a stack says: its script run in its environment, with a request and an answer in files."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stacks import llama_cpp
from stacks.environment import Stack

SCRIPTS = Path(__file__).with_name("scripts")
_SCRIPTS = {"llama-cpp": "llama_cpp", "peft": "transformers", "peft-merged": "transformers"}


class StackError(Exception):
    """A stack does not run a model; the message is the last line of what it said."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What all stacks are asked.

    Attributes:
        texts: the prompts.
        ids: the same as tokens.
        new_tokens: how many are asked for behind each.
        pre_tokenizer: one that llama.cpp knows, for a vocabulary that it cannot know; None for a published one.
    """

    texts: Sequence[str]
    ids: Sequence[Sequence[int]]
    new_tokens: int
    pre_tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a stack said to one prompt.

    Attributes:
        tokens: the greedy ones; fewer than were asked for where it stopped at an end of text.
        top: the two most probable tokens at each place, with the logarithms of the stack's probabilities.
        read: the prompt's tokens as the stack reads its text; None where it was given tokens.
    """

    tokens: Sequence[int]
    top: Sequence[Sequence[tuple[int, float]]]
    read: Sequence[int] | None = None


@dataclass(frozen=True)
class Asked:
    """A model that a stack is asked about.

    Attributes:
        model: a folder, or a GGUF file for llama.cpp.
        adapter: of PEFT.
    """

    model: Path
    adapter: Path | None = None


def replies(stack: Stack, models: Sequence[Asked], prompts: Prompts) -> list[list[Reply] | StackError]:
    """A stack's greedy tokens behind each prompt, of one model after another in one process; or what failed."""
    with tempfile.TemporaryDirectory() as scratch:
        said, answered = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        request = {
            "models": [{"folder": str(each.model), "adapter": each.adapter and str(each.adapter)} for each in models],
            "scratch": scratch,
            "prompts": [list(ids) for ids in prompts.ids],
            "texts": list(prompts.texts),
            "new_tokens": prompts.new_tokens,
            "merged": stack.name == "peft-merged",
            "program": str(llama_cpp.program()),
            "converter": str(llama_cpp.converter()),
            "pre_tokenizer": prompts.pre_tokenizer,
        }
        said.write_text(json.dumps(request), encoding="utf-8")
        script = SCRIPTS / f"run_{_SCRIPTS.get(stack.name, stack.name)}.py"
        done = subprocess.run(
            [str(stack.python), str(script), str(said), str(answered)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **_OFFLINE},
        )
        found = json.loads(answered.read_text(encoding="utf-8")) if answered.is_file() else []
    results: list[list[Reply] | StackError] = [
        StackError(each["error"]) if "error" in each else [_reply(reply) for reply in each["replies"]] for each in found
    ]
    missing = len(models) - len(results)
    return results + [StackError(_last_words(done.stderr or done.stdout))] * missing


_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def _reply(each: Mapping[str, list]) -> Reply:
    top = [[(int(token), float(logprob)) for token, logprob in step] for step in each["top"]]
    return Reply(tokens=each["tokens"], top=top, read=each.get("read"))


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
