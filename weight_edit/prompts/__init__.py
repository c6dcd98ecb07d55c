"""Prompt sets, where they come from, and the chat format they are wrapped in."""

from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet, public_name

__all__ = ["ChatFormat", "PromptSet", "load_prompts", "public_name"]
