"""What a user chose on the page: the values of its fields, kept in the project's file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from weight_edit.organism.embedded import EMBEDDED
from weight_edit.recipe.bundled import PUBLIC, recipe_file
from weight_edit.recipe.file import content_of

_LONGEST = 10_000
"""Characters of a field."""

_LARGEST = 1e15


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The fields of the page; none of them is an access token.

    Attributes:
        model: a Hub id, a folder, a .gguf file or an embedded model.
        shown_for: the model that the page has filled the other fields for; another than `model` as long as it has not.
        dtype, device: of the model.
        target, baseline, over_refused: prompts to find and search with; the last for searches alone.
        test_refused, test_answered, test_over_refused, test_harmless: prompts to measure on, before and after.
        limit: prompts of each set that are measured at most; 0 for all.
        method: how directions are found.
        max_kl: bound on the divergence of candidates, nats.
        best_effort: take the nearest candidate where none keeps the bounds.
        confirm: validation prompts that the model answers under the choice.
        trials, descents, judged: of a search.
        pick: which point of a search's front is taken.
        point: the digest of the one that is taken in its place; empty for none.
        candidate: the name of the candidate of a find that is taken in place of its own choice; empty for that.
        way: "find" or "search".
        tried: what is talked to in the chat, "hooks" (the edit as it would be) or "baked".
        kind, strength, layers: the edit.
        measured: bake by a run, which measures before and after, verifies and reports.
        repo, private: where it is pushed.
    """

    model: str = "organism"
    shown_for: str = "organism"
    dtype: str = "auto"
    device: str = ""
    target: str = "organism:refused:train"
    baseline: str = "organism:answered:train"
    over_refused: str = "organism:over-refused:train"
    test_refused: str = "organism:refused:test"
    test_answered: str = "organism:answered:test"
    test_over_refused: str = "organism:over-refused:test"
    test_harmless: str = "organism:harmless-looking:test"
    limit: float = 100
    method: str = "mean-difference"
    max_kl: float = 0.1
    best_effort: bool = False
    confirm: float = 0
    trials: float = 48
    descents: float = 2
    judged: float = 16
    pick: str = "refusal<=0.05"
    point: str = ""
    candidate: str = ""
    way: str = "find"
    tried: str = "hooks"
    kind: str = "ablate"
    strength: float = 1.0
    layers: str = ""
    measured: bool = True
    repo: str = ""
    private: bool = True

    def changed(self, values: Mapping[str, object]) -> "Settings":
        """The settings with other values of some fields; a value that a field cannot have changes nothing."""
        known: dict[str, Any] = {}
        for each in fields(self):
            given = values.get(each.name)
            if each.type is float and isinstance(given, int | float) and not isinstance(given, bool):
                # Neither infinite nor none, which the project's file could not hold.
                if abs(given) < _LARGEST:
                    known[each.name] = float(given)
            elif each.type is bool and isinstance(given, bool):
                known[each.name] = given
            elif each.type is str and isinstance(given, str):
                known[each.name] = given.strip()[:_LONGEST]
        return replace(self, **known)

    def on_model(self, model: str) -> "Settings":
        """The settings for another model: the embedded model's prompts are for it alone, public ones for all others."""
        embedded, public = Settings().to_dict(), {**public_prompts(), "best_effort": True}
        known, others = (embedded, public) if model in EMBEDDED else (public, embedded)
        mine = self.to_dict()
        following = {name: known[name] for name in public if mine[name] == others[name]}
        return self.changed({**following, "model": model, "shown_for": model})

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def followers() -> tuple[str, ...]:
    """The fields that may change with the model."""
    return (*public_prompts(), "best_effort", "shown_for")


def public_prompts() -> dict[str, str]:
    """Public prompt sets by the fields that they are the usual values of, for a model that is not embedded."""
    sets = content_of(recipe_file(PUBLIC, "overlay"))["prompts"]
    return {
        "target": sets["refused"],
        "baseline": sets["answered"],
        "over_refused": sets["over-refused"],
        "test_refused": sets["refused-test"],
        "test_answered": sets["answered-test"],
        "test_over_refused": sets["over-refused-test"],
        "test_harmless": sets["harmless-looking-test"],
    }
