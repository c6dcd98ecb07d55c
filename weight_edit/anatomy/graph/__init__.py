"""The recorded graph of a forward pass, and which of its operations commute with linear maps."""
