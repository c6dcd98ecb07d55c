"""The source of a bake: its shards, the files that are read, and the refused formats."""
