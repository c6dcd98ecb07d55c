"""The edits, one file each; `edits/registry.py` finds them by itself."""
