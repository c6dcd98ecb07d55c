"""The narrow copy of a model: its architecture at a few dimensions, with random weights."""
