"""Recipes that were written for an earlier version."""

from collections.abc import Mapping
from typing import Any

from weight_edit.utils.progress import announce
from weight_edit.utils.renamed import present_values


def in_present_words(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content in the words of today, where it was written for an earlier version; says so on stderr."""
    present = dict(content)
    verify, edit = content.get("verify"), content.get("edit")
    if isinstance(verify, Mapping) and "n_prompts" in verify and "limit" not in verify:
        present["verify"] = {"limit" if key == "n_prompts" else key: value for key, value in verify.items()}
        announce("note: the recipe's verify.n_prompts is called verify.limit now")
    if isinstance(edit, Mapping):
        present["edit"] = present_values(edit)
        for key, value in present["edit"].items():
            if value != edit[key]:
                announce(f"note: the recipe's edit.{key}: {edit[key]} is called {value} now")
    return present
