"""A checkpoint written anew: planned, copied or edited shard by shard, whole or not at all."""
