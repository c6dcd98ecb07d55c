"""One tensor: its header entry, bytes and numbers, and its edited bytes."""
