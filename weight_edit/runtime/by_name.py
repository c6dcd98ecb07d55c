"""Public functions that take model names where the functions below them take models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weight_edit.anatomy.derive import anatomy_of as derived
from weight_edit.anatomy.parts import Anatomy
from weight_edit.hub.source import resolve
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.generation import generate as answers_to
from weight_edit.runtime.loading import Model, loaded, read_config
from weight_edit.utils.renamed import renamed_arguments


def anatomy_of(
    model: Any, *, revision: str | None = None, token: str | None = None, trust_remote_code: bool = False
) -> Anatomy:
    """Every writer to and reader from a model's residual stream, without its weights.

    Args:
        model: a name or folder as in `load`, a `Model`, or a transformers configuration.
        revision, token: of a Hub model.
        trust_remote_code: allow the model's own code.

    Raises:
        UsageError: no such model, or a config that is none of a language model.
        UnsupportedError: with the module that is not understood, or the reason.
    """
    if isinstance(model, Model):
        return model.anatomy
    if isinstance(model, str | os.PathLike):
        source = resolve(model, revision=revision, token=token, weights=False)
        model = read_config(source, trust_remote_code=trust_remote_code)
    return derived(model, trust_remote_code=trust_remote_code)


@renamed_arguments(format="chat_format")
def generate(
    model: Model | str | Path,
    prompts: PromptSet | str | Path | Sequence[Sequence[int]],
    *,
    chat_format: ChatFormat | None = None,
    max_new_tokens: int = 64,
    batch_size: int | None = None,
) -> list[Generation]:
    """Generate greedy answers to prompts, until an end token or `max_new_tokens`.

    Args:
        model: from `load`, or what `load` takes.
        prompts: a prompt set, what `load_prompts` takes, or token ids.
        chat_format: how a set's prompts become tokens; the tokenizer's chat template when None.
        batch_size: prompts at a time, at most; None is as many as memory allows.

    Raises:
        UsageError: as `load` and `load_prompts`; or a wrong option, a sequence that is empty or too long.
    """
    model = loaded(model)
    if isinstance(prompts, PromptSet | str | os.PathLike):
        chat = chat_format or ChatFormat(model.tokenizer)
        prompts = [chat.encode(prompt) for prompt in load_prompts(prompts).prompts]
    return answers_to(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
