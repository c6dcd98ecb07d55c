"""Edits as pure tensor algebra: no files, no models; `low_rank.py` is the one idea.

Factors are numpy arrays; torch is imported where it is used.
"""
