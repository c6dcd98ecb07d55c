"""Every model type of transformers tried: proven through the disk, or refused by name."""
