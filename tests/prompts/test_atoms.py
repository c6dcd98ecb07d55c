"""Every embedded set of neutral prompts is large enough and shares no prompt with another."""

import pytest

from weight_edit.errors import UsageError
from weight_edit.prompts.atoms.atoms import NEUTRAL, atom_names
from weight_edit.prompts.load import load_prompts


def test_every_set_has_enough_prompts_of_its_own():
    seen = set()
    for name in (*atom_names(), NEUTRAL):
        loaded = load_prompts(f"atoms:{name}")
        assert loaded.name == f"atoms:{name}"
        assert 15 <= len(loaded) <= 20
        assert loaded.dropped == {"empty": 0, "duplicate": 0}
        assert not seen & set(loaded.prompts)
        assert all(len(prompt) < 200 for prompt in loaded.prompts)
        seen |= set(loaded.prompts)


def test_names():
    assert {"mathematics", "code", "format", "politeness", "translation", "summarising"} <= set(atom_names())
    assert NEUTRAL not in atom_names()
    with pytest.raises(UsageError, match=r"no set of atoms 'sums'; choose one of code, .*, everyday"):
        load_prompts("atoms:sums")
