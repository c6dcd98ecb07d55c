"""Prompt sets, where they come from, and the chat format they are wrapped in."""

from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.kept import ThoughtFormat
from weight_edit.prompts.load import check_prompts, load_prompts
from weight_edit.prompts.sets import PromptSet, public_name
from weight_edit.prompts.thoughts import Thinking, split_thought

__all__ = [
    "ChatFormat",
    "PromptSet",
    "Thinking",
    "ThoughtFormat",
    "answer_text",
    "check_prompts",
    "load_prompts",
    "public_name",
    "split_thought",
]
