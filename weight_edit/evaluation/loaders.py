"""How the models of an evaluation come and go: a loader closes what it opened, and nothing that its caller made."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from weight_edit.errors import UsageError
from weight_edit.evaluation.backends import AUTO, gguf_file, opened, remarks_on
from weight_edit.evaluation.gguf.served import ServedGguf
from weight_edit.evaluation.target import ModelTarget, Target, target_of
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import Model
from weight_edit.runtime.options import FormatOptions, LoadOptions

Loader: TypeAlias = Callable[[], AbstractContextManager[Target]]
"""Gives a target for the length of a block, behind which there is room for another one."""


def lent(target: Target) -> Loader:
    """The loader of a target that its caller has and keeps."""
    return lambda: nullcontext(target)


def loader_of(
    model: Model | str | Path | Target, chat_format: ChatFormat | None = None, *, batch_size: int | None = None
) -> Loader:
    """The loader of a model that is loaded or named; a GGUF file is behind a server of its own where one can run it.

    Raises:
        UsageError: nothing here can run the file, or a chat format is given for one that a server runs.
    """
    if not isinstance(model, str | PathLike):
        return lambda: nullcontext(target_of(model, chat_format, batch_size=batch_size))
    name = fspath(model)
    found = opened(name, AUTO, FormatOptions()) if gguf_file(name) is not None else name
    if isinstance(found, ServedGguf):
        if chat_format is not None:
            raise UsageError(
                f"`chat_format`: {found.public_name} is run by llama.cpp's server with the file's own chat template; "
                "leave it out, or give a `ServedGguf` with the settings that you want"
            )
        return lambda: closing(found)

    def load() -> AbstractContextManager[Target]:
        read = LoadOptions().load(found)
        chat = chat_format or ChatFormat(read.tokenizer)
        return nullcontext(ModelTarget(read, chat, batch_size, remarks_on(found)))

    return load
