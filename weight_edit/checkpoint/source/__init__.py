"""The source of a bake: its shards, which files are read, and which sources are refused."""
