"""Differences between two checkpoints, and the directions that explain them."""
