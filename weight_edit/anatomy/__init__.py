"""The anatomy of a model: the tensors that write to and read from the residual stream."""
