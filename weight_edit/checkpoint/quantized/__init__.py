"""Quantised tensors as storages: their numbers decoded, edited and stored again in the format that they had."""
