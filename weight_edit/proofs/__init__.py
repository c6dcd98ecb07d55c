"""Proofs on narrow copies: nothing is left in the stream, and hooks agree with weights."""
