"""Prompts that show one ordinary ability or style each."""
