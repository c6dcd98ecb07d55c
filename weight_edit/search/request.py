"""What a search is asked for: prompts, how many candidates of which kind, and the rule that picks one of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.samples import MOST_MORE
from weight_edit.errors import UsageError
from weight_edit.prompts.sets import PromptSet

SAMPLERS = ("tpe", "cma-es", "nsga-ii", "random")
"""What draws candidates: Parzen estimators, evolution strategies, a genetic algorithm, or nothing but chance."""

LEAST_JUDGED = 8
"""Candidates whose answers are judged, at least: how the cheap score ranks cannot be told from fewer."""


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The prompts and settings of a search.

    Attributes:
        find: the search for directions that comes first; its target prompts are those whose refusal is to go, its
            baseline prompts those whose answers are to stay, and its validation prompts are what points are judged on.
        finders: further methods whose directions the sampler may take, with their options.
        over_refused: harmless prompts that the model refuses, split as the others; None where none are asked.
        n_train, n_validation: prompts of each set that are scored, at most, of those that `find` draws.
        tokens: of each continuation that the cheap score reads, the first ones.
        trials: candidates of the sampler, scored cheaply; 0 for none.
        generation: candidates of the sampler that are drawn from the same history.
        sampler: one of `SAMPLERS`.
        descents: gradient descents; 0 for none.
        descent: their settings, see `DescentOptions`.
        judged: candidates whose answers are generated and judged, of the front and spread over all others.
        finalists: points of the front that are judged at every length, on all validation prompts.
        lengths: the lengths at which answers are judged, tokens; the last one counts, and all but finalists get the
            first one only.
        rounds: further directions that are mined from what the finalists still refuse, one a round.
        pick: the rule that picks one point of the front, see `search.pick.picked`.
        embeddings: "both" or "untie", see `EditPlan`.
        known_answers: refused prompts' answers are those that the prompt set gives, where it gives any.
        seed: of everything that is drawn.
    """

    find: FindRequest
    finders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    over_refused: PromptSet | None = None
    n_train: int = 64
    n_validation: int = 64
    tokens: int = 12
    trials: int = 96
    generation: int = 16
    sampler: str = "tpe"
    descents: int = 3
    descent: Mapping[str, Any] = field(default_factory=dict)
    judged: int = 32
    finalists: int = 6
    lengths: tuple[int, ...] = (64, 128)
    rounds: int = 0
    pick: str = "refusal<=0.05"
    embeddings: str = "both"
    known_answers: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.find.target) != 1:
            raise UsageError("a search takes one set of target prompts; put them into one file", option="target")
        if "seed" in self.descent:
            raise UsageError("`descent`: its seed is the search's own; give `seed`", option=["descent", "seed"])
        least = {
            "n_train": 8,
            "n_validation": 4,
            "tokens": 1,
            "trials": 0,
            "generation": 1,
            "descents": 0,
            "judged": LEAST_JUDGED,
            "finalists": 1,
            "rounds": 0,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UsageError(f"`{name}={getattr(self, name)}`: must be at least {smallest}", option=name)
        if self.sampler not in SAMPLERS:
            raise UsageError(f"`sampler='{self.sampler}'`: must be one of {', '.join(SAMPLERS)}", option="sampler")
        if self.embeddings not in ("both", "untie"):
            raise UsageError(f"`embeddings='{self.embeddings}'`: must be both or untie", option="embeddings")
        if not self.lengths or min(self.lengths) < 1 or sorted(set(self.lengths)) != list(self.lengths):
            raise UsageError("`lengths` are numbers of tokens that grow, such as (64, 128)", option="lengths")

    def check_offload(self, offload: bool) -> None:
        """Refuse descents in a model whose weights stay on disk.

        Raises:
            UsageError: naming both options.
        """
        if offload and self.descents:
            raise UsageError(
                "`descents`: gradients need the whole model in memory; with `offload` give `descents=0`",
                option=["descents", "offload"],
            )

    @property
    def key(self) -> dict[str, Any]:
        """The settings that all results depend on, by name, JSON values; prompts by content, as files may change.

        How far a search goes (`extent`) is none of them: one that is done goes on when it is asked for more.
        """
        over = self.over_refused
        # Where it follows `n_train`, that is what differs.
        more = MOST_MORE if self.find.n_more is None else self.find.n_more
        return {
            "over_refused": None if over is None else over.content_sha256,
            # By the bounds `find` chooses the plain ablation, and the judge reads all answers.
            "bounds of the find": asdict(self.find.rule),
            "confirm of the find": [self.find.confirm, self.find.confirm_by, more],
            "judge": [self.find.spec.kind, dict(self.find.spec.options)],
            "finders": {name: dict(options) for name, options in self.finders.items()},
            "lengths": list(self.lengths),
            **{
                name: getattr(self, name)
                for name in (
                    *("n_train", "n_validation", "tokens", "generation", "sampler", "embeddings", "known_answers"),
                    "seed",
                )
            },
        }

    @property
    def extent(self) -> dict[str, Any]:
        """The settings that say how far the search goes, by name, JSON values."""
        return {
            "descent": dict(self.descent),
            **{name: getattr(self, name) for name in ("trials", "descents", "judged", "finalists", "rounds")},
        }
