"""Models whose weights stay on disk: every batch goes through a block before the next one is read."""
