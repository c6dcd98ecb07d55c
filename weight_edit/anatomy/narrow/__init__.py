"""Narrow copies of models: the architecture at a few dimensions, with random weights."""
