"""Directions in the residual stream: how they are found, scored, chosen and kept."""
