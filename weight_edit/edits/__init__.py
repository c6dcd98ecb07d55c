"""Edits as pure tensor algebra, without files or models; `low_rank.py` has the central map.

Factors are numpy arrays; torch is imported where it is used.
"""
