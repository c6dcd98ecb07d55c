"""Damaged checkpoints through the whole of bake: baked rightly or refused in one line, and nothing is left behind.

`benchmarks/fuzz_bake.py` does the same for thousands of them.
"""

import os
from collections import Counter

import pytest

from tests.helpers.bake_fuzzing import Sample, bake_damaged

CASES = int(os.environ.get("WEIGHT_EDIT_BAKE_FUZZ", "240"))
"""How many; the same ones every time."""

PARTS = 8


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_damage_causes_a_traceback_a_hang_or_a_broken_output(tmp_path, sample, part):
    outcomes: Counter[str] = Counter()
    for seed in range(part, CASES, PARTS):
        (tmp_path / str(seed)).mkdir()
        outcomes[bake_damaged(sample, tmp_path / str(seed), seed)] += 1
    assert set(outcomes) <= {"baked", "UsageError", "UnsupportedError"}
    assert outcomes["UsageError"] > 0
