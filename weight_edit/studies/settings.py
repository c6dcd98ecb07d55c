"""Kinds of settings that several studies have."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from weight_edit.prompts.load import load_prompts


def _there(spec: str) -> str:
    # A misspelt set is refused before the recipe's searches run, not after them.
    load_prompts(spec)
    return spec


Prompts: TypeAlias = Annotated[str, AfterValidator(_there)]
"""A prompt set as users write it, see `load_prompts`; it has been read once when the settings are there."""

Position: TypeAlias = Annotated[int, Field(lt=0)] | Literal["all"]
"""A position: from a prompt's end, or the mean over all of a prompt's tokens."""

Layer: TypeAlias = Annotated[int, Field(ge=0)]
"""A block, at whose input something is read."""
