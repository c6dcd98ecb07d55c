"""The catalogue: a small sample of every decoder family that transformers has."""
