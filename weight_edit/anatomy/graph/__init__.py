"""The recorded graph of a forward pass, and its operations that commute with linear maps."""
