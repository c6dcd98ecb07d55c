"""Storages of quantised tensors: numbers are decoded, edited and stored in the same format."""
