"""Find, bake and prove edits of language models."""
