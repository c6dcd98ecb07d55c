"""The model card of an edited checkpoint: a pure function of its manifest."""
