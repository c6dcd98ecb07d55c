"""The names and layout of a model's parameters in its files."""
