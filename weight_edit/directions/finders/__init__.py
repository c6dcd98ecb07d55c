"""Ways of finding directions, one file each; `directions/registry.py` finds them by itself."""
