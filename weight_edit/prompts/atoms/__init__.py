"""Prompts that each show one ordinary ability or style."""
