"""The work whose costs are planned: prompts by number and length, and the settings of what is done with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from weight_edit.errors import UsageError


@dataclass(frozen=True)
class Lengths:
    """The lengths of a set's prompts in tokens, template included.

    Attributes:
        mean: of the lengths.
        square: mean of their squares.
    """

    mean: float
    square: float

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        """Those of prompts that are known."""
        return cls(sum(lengths) / len(lengths), sum(length * length for length in lengths) / len(lengths))

    @classmethod
    def all_alike(cls, length: float) -> "Lengths":
        """Those of prompts of which only the mean is known."""
        return cls(float(length), float(length) ** 2)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The settings of a find, a search and what follows, as far as costs depend on them.

    Attributes:
        target, baseline: lengths of the prompts.
        measured: whether the lengths are those of given prompts.
        prefix: tokens that all prompts begin with, which are run once for each edit.
        targets: sets of target prompts.
        n_train, n_validation, n_more: prompts of each set, as in `find_directions`.
        positions: tokens that are looked at, from a prompt's end.
        candidates: how many are scored, at least and at most.
        allowed: the layers, from the first, that may be chosen.
        induces: whether candidates are rejected by what adding them induces, the cheapest score, first of all.
        answers: prompts of each set that are answered and judged before candidates are found.
        first_tokens: prompts of each set whose first answer token is looked at before candidates are found.
        max_new_tokens: the length of answers, at most.
        confirm: prompts that are answered under each of the best candidates; 0 where nothing is confirmed.
        trials: of a search for an edit's settings.
        n_evaluate: prompts of each of two sets that the base and the edited model answer.
        evaluate_tokens: the length of these answers, at most.
        n_verify: prompts that the checks of an edited model run on.
        offload: whether the model's blocks lie on disk, each read once for all prompts and edits of a request.
        processes: that the work is divided among.
    """

    target: Lengths
    baseline: Lengths
    measured: bool
    prefix: int
    targets: int = 1
    n_train: int = 128
    n_validation: int = 32
    n_more: int = 64
    positions: int
    candidates: tuple[int, int]
    allowed: int
    induces: bool = True
    answers: int
    first_tokens: int
    max_new_tokens: int = 32
    confirm: int = 0
    trials: int = 0
    n_evaluate: int = 100
    evaluate_tokens: int = 64
    n_verify: int = 16
    offload: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("n_train", 1),
            ("n_validation", 1),
            ("n_more", 0),
            ("max_new_tokens", 1),
            ("confirm", 0),
            ("trials", 0),
            ("n_evaluate", 0),
            ("processes", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"`{name}={getattr(self, name)}`: must be at least {least}", option=name)
        shortest = min(self.target.mean, self.baseline.mean)
        if not 0 <= self.prefix < shortest:
            raise UsageError(
                f"`prefix_tokens={self.prefix}`: must be from 0 on and less than a prompt has ({shortest:.0f} tokens)",
                option="prefix_tokens",
            )

    @property
    def sets(self) -> int:
        """Sets of target prompts, and the baseline."""
        return self.targets + 1
