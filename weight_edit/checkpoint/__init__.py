"""Checkpoint folders as bytes: read strictly, compared, and rewritten where edited.

This package knows files, tensors' names, dtypes and byte ranges; nothing of architectures or directions.
"""
