"""What a stack says: its script run in its environment, with a request and an answer in files."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacks import llama_cpp
from stacks.environment import Stack

LIMIT = 900.0
"""Seconds that a stack may take over one model, its conversion included."""

SCRIPTS = Path(__file__).with_name("scripts")
_SCRIPTS = {"llama-cpp": "llama_cpp", "peft": "transformers", "peft-merged": "transformers"}


class StackError(Exception):
    """A stack does not run a model, or gives no answer of the right form; the message is one line."""


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
        top: the two most probable tokens at each place, with the logarithms of the stack's probabilities; None at a
            place where the stack does not say them.
        read: the prompt's tokens as the stack reads its text; None where it was given tokens.

    Raises:
        ValueError: the places of `tokens` and `top` are not the same, or a place has not two tokens.
    """

    tokens: Sequence[int]
    top: Sequence[Sequence[tuple[int, float]] | None]
    read: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if len(self.top) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens, and probabilities at {len(self.top)} places")
        if any(step is not None and len(step) != 2 for step in self.top):
            raise ValueError("a place with another number of probabilities than two")


@dataclass(frozen=True)
class Asked:
    """A model that a stack is asked about.

    Attributes:
        model: a folder, or a GGUF file for llama.cpp.
        adapter: of PEFT.
    """

    model: Path
    adapter: Path | None = None


def absence(stack: Stack) -> str | None:
    """Why a stack cannot be asked here; None where it can."""
    if stack.name != "llama-cpp":
        return stack.absence()
    if not llama_cpp.program().is_file():
        return "there is no llama-server"
    if llama_cpp.program() == llama_cpp.PROGRAM and not llama_cpp.is_built():
        return "llama-server is of another release"
    if not llama_cpp.converter().is_file():
        return "there is no converter"
    return stack.absence()


def replies(
    stack: Stack, models: Sequence[Asked], prompts: Prompts, *, limit: float = LIMIT
) -> list[list[Reply] | StackError]:
    """A stack's greedy tokens behind each prompt, of one model after another in one process; or what failed.

    Args:
        limit: seconds for each model; all that a stack has started is ended after those of all together.
    """
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
        last_words = _run([str(stack.python), str(script), str(said), str(answered)], limit=limit * len(models))
        found = json.loads(answered.read_text(encoding="utf-8")) if answered.is_file() else []
    results = [_replies(each, prompts) for each in found]
    return results + [StackError(last_words)] * (len(models) - len(results))


def _run(command: Sequence[str], *, limit: float) -> str:
    """Run a script to its end or for so many seconds; the last line of what it said."""
    environment = {**os.environ, **_OFFLINE}
    # In a group of its own, so that a server that it has started ends with it.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"no answer within {limit:.0f} s"
            raise
    return _last_words(err or out)


_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def _replies(answer: Mapping[str, Any], prompts: Prompts) -> list[Reply] | StackError:
    """An answer about one model, held to its form: a reply to each prompt, and no longer than was asked for."""
    if "error" in answer:
        return StackError(answer["error"])
    try:
        found = [
            Reply(tokens=each["tokens"], top=_top(each["top"]), read=each.get("read")) for each in answer["replies"]
        ]
    except ValueError as error:
        return StackError(f"broken reply: {error}")
    if len(found) != len(prompts.ids):
        return StackError(f"broken reply: {len(found)} replies to {len(prompts.ids)} prompts")
    if longer := [len(each.tokens) for each in found if len(each.tokens) > prompts.new_tokens]:
        return StackError(f"broken reply: {longer[0]} tokens where {prompts.new_tokens} were asked for")
    return found


def _top(steps: Sequence[Sequence[tuple[int, float]] | None]) -> list[list[tuple[int, float]] | None]:
    return [step and [(int(token), float(logprob)) for token, logprob in step] for step in steps]


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
