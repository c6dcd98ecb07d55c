"""The possible results of a trial."""

PROVEN, REFUSED, FAILED = "proven", "refused", "failed"
"""The results of a trial.

Proven: complete, and hooks agree with weights. Refused: by name. Failed: neither, a fault of this package.
"""
