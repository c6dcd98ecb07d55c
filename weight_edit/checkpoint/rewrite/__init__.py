"""A checkpoint rewritten: planned, then copied or edited shard by shard, atomically."""
