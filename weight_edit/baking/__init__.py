"""Edits baked into checkpoints: prepared, checked, written shard by shard, with a card."""
