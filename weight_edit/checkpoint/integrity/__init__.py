"""Whether a checkpoint is what its base and its edit say: files, tensors, bytes."""
