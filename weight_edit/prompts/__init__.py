"""Prompt sets, where they come from, and the chat format they are wrapped in."""
