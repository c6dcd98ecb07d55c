"""Counts over all model types, by status, kind of structure and reason of refusal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from weight_edit.inspection.catalogue.facts import KINDS
from weight_edit.inspection.catalogue.status import FAILED, PROVEN, REFUSED
from weight_edit.inspection.catalogue.trial import Trial
from weight_edit.inspection.catalogue.trials import chosen_entries, try_all
from weight_edit.utils.progress import bar
from weight_edit.version import __version__

GROUPS = {
    "drafts tokens for another model": "no decoder of its own: drafts tokens for another model",
    "is the decoder of an encoder-decoder": "an encoder-decoder, or its decoder",
    "is an encoder-decoder": "an encoder-decoder, or its decoder",
    "holds an encoder-decoder": "an encoder-decoder, or its decoder",
    "an encoder and a decoder in one": "an encoder-decoder, or its decoder",
    "different streams": "an encoder-decoder, or its decoder",
    "attention looks both ways": "an encoder: attention looks both ways",
    "gives no logits": "gives no logits of a next token",
    "no one language model": "several language models in one",
    "several models": "several language models in one",
    "several language models": "several language models in one",
    "lies in the residual stream itself": "a norm lies in the residual stream itself",
    "the constant": "a constant is written into the stream",
    "more than one norm": "several norms between a writer and the stream",
    "had no part in any forward pass": "a part that no forward pass reaches",
    "written into the residual stream": "an operation that does not keep directions apart lies in the stream",
    "library": "needs a library that is not installed",
    "cannot be built": "transformers cannot build it",
    "is broken in transformers": "its forward pass is broken in this release of transformers",
    "does not run": "a narrow copy of it does not run",
    "no inputs": "a narrow copy of it does not run",
    "on disk": "its layout on disk is not understood",
}
"""Fragment of a reason -> group of refusals; the first match counts."""


@dataclass(frozen=True)
class Catalogue:
    """The trials of all model types.

    Attributes:
        trials: of each model type and variant.
        versions: of what they were made with.
    """

    trials: tuple[Trial, ...]
    versions: dict[str, str]

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> "Catalogue":
        """The catalogue of some trials, in alphabetical order, with the installed versions."""
        versions = {"weight_edit": __version__, "transformers": version("transformers"), "torch": version("torch")}
        return cls(tuple(sorted(trials, key=lambda trial: (trial.model_type, trial.variant or ""))), versions)

    def having(self, status: str) -> tuple[Trial, ...]:
        """The trials with a status."""
        return tuple(trial for trial in self.trials if trial.status == status)

    @property
    def passed(self) -> bool:
        """Whether every trial was proven or refused."""
        return not self.having(FAILED)

    def counts(self) -> dict[str, int]:
        """Status -> number of model types, without variants."""
        usual = Counter(trial.status for trial in self.trials if trial.variant is None)
        return {status: usual[status] for status in (PROVEN, REFUSED, FAILED)}

    def partly(self) -> int:
        """The number of proven model types with a part that could not be followed, and is kept."""
        return sum(bool(trial.unknown) for trial in self.having(PROVEN) if trial.variant is None)

    def kinds(self) -> dict[str, int]:
        """Kind of structure -> number of proven model types, in the order of `KINDS`."""
        found = Counter(kind for trial in self.having(PROVEN) if trial.variant is None for kind in trial.kinds)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def reasons(self) -> dict[str, int]:
        """Group of refusals -> number of model types, most frequent first."""
        found = Counter(group(trial.reason) for trial in self.having(REFUSED) if trial.variant is None)
        return dict(found.most_common())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "versions": self.versions,
            "passed": self.passed,
            "counts": self.counts(),
            "proven_partly": self.partly(),
            "kinds": self.kinds(),
            "reasons": self.reasons(),
            "trials": [trial.to_dict() for trial in self.trials],
        }


def group(reason: str) -> str:
    """The group of refusals for a reason."""
    return next((name for fragment, name in GROUPS.items() if fragment in reason), "other")


def inspect_all(*, only: Sequence[str] = (), processes: int | None = None) -> Catalogue:
    """Try every model type of transformers that generates text, from text or with images.

    Args:
        only: model types; all when empty.
        processes: how many at once; as many as there are cores when None.

    Raises:
        UsageError: a model type that the mappings do not have.
    """
    some = chosen_entries(only)
    trials = []
    with bar("model types", len(some)) as progress:
        for trial in try_all(some, processes=processes):
            trials.append(trial)
            found = trial.why if trial.leak is None else f"{trial.leak:.0e}, {trial.logit_difference:.0e}"
            progress.say(f"{trial.status:8} {trial.label}: {found}")
            progress.advance()
    return Catalogue.of(trials)
