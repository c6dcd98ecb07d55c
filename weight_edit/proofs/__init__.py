"""Proofs on narrow copies: nothing is left in the stream, and an edit's hooks and weights agree."""
