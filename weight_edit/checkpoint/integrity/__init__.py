"""Integrity of an edited checkpoint: its files, tensors and bytes against base and edit."""
