"""The catalogue: every model type of transformers proven through the disk, or refused."""
