"""Operators that can have made a tensor's difference, one a file: hypotheses, each with what it predicts."""
