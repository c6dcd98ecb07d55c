"""Prompt sets, their sources, and the chat format around them."""
