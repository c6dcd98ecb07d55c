"""Runs of recipes: every step in order, with results kept in a folder so that it can resume."""
