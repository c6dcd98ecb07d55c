"""Experiments on an unedited model, under hooks: each reads what a recipe found, and writes tables and figures."""
