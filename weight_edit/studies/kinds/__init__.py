"""The studies, one file each; `studies/registry.py` finds them by itself."""
