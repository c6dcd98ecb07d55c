"""Packs there and back on toy models: every kind of edit in two dtypes, every storage in both roundings.

    PYTHONPATH=. python benchmarks/pack_families.py

What is not equal raises; what is refused is named. It takes some minutes.
"""

import itertools
import tempfile
from pathlib import Path

import torch

from tests.helpers.pack_samples import EVERY_EDIT, STORED, both_ways, edited_family, edited_storage


def main() -> None:
    """One line for each."""
    for (family, name, options), dtype in itertools.product(EVERY_EDIT, (torch.bfloat16, torch.float32)):
        with tempfile.TemporaryDirectory() as folder:
            both_ways(*edited_family(family, name, options, Path(folder), dtype), Path(folder))
        print(f"{family} {name} {options or ''} {dtype}: equal", flush=True)
    for form, rounding in itertools.product(STORED, ("balanced", "nearest")):
        with tempfile.TemporaryDirectory() as folder:
            both_ways(*edited_storage(form, rounding, Path(folder)), Path(folder))
        print(f"{form} {rounding}: equal", flush=True)


if __name__ == "__main__":
    main()
