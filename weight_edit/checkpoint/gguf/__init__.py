"""GGUF files as checkpoints: their header, their tensors, their parts."""
