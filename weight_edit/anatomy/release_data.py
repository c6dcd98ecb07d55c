"""Releases of transformers in which a family's own forward pass is broken, as data."""

RUNS_WITH = {"llama4": "5.23.0"}
"""Model type -> the newest release in which it is known to run.

It is looked at only where a forward pass has failed, so that a release which mends the family needs no change here.
Llama 4's reads, in 5.24.0, what its text model does not return.
"""
