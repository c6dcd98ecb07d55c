"""Exceptions that a model's code or transformers' config checks raise on broken files."""

from huggingface_hub.errors import StrictDataclassError

from weight_edit.errors import FOREIGN_ERRORS

# Configs are strict dataclasses, whose errors are of no class that Python has.
MODEL_ERRORS = (*FOREIGN_ERRORS, StrictDataclassError)
"""Not in `weight_edit.errors`, which loads nothing large."""
