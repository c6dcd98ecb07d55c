"""Which tensors write to and read from the residual stream, in memory and on disk."""
