"""Edits baked into checkpoints: prepared and checked, then written shard by shard, with a card and a manifest."""
