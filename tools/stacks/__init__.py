"""Inference stacks in environments of their own, and what each says to the same prompts."""
