"""How a trial of a model type can end."""

PROVEN, REFUSED, FAILED = "proven", "refused", "failed"
"""Complete, and hooks agree with weights; refused by name; neither of the two, a fault of this package."""
