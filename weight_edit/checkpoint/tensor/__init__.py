"""One tensor: its header entry, its bytes, its numbers, and the edited bytes written in their place."""
