"""Checkpoint folders as bytes: read strictly, rewritten without touching what is not edited, and compared.

This package knows files, tensors' names, dtypes and byte ranges; nothing of architectures or directions.
"""
