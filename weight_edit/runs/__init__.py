"""Recipes carried out: every step in order, its results kept in the run's folder, and taken up again."""
