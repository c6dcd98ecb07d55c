"""The checks of an edited checkpoint: integrity, completeness, faithfulness."""
