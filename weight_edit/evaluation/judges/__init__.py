"""Judges of answers, one file each."""
