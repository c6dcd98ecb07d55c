"""Types of settings that several studies share."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from weight_edit.prompts.load import load_prompts


def _there(spec: str) -> str:
    # A misspelt set is refused before the recipe's searches run, not after them.
    load_prompts(spec)
    return spec


Prompts: TypeAlias = Annotated[str, AfterValidator(_there)]
"""A prompt set by name, see `load_prompts`; validation has read it once."""

Position: TypeAlias = Annotated[int, Field(lt=0)] | Literal["all"]
"""A position counted from a prompt's end, or "all": the mean over its tokens."""

Layer: TypeAlias = Annotated[int, Field(ge=0)]
"""A block whose input is read."""
