"""What a search found: the front of judged points, the one that is picked, and how well the cheap score ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.search.candidate import Candidate
from weight_edit.search.front import FrontPoint
from weight_edit.search.pick import Pick
from weight_edit.search.point import Point
from weight_edit.search.ranking import Tau
from weight_edit.search.rungs import REFUSED, JudgedPoint
from weight_edit.search.score import Score
from weight_edit.tables.shown import Shown


@dataclass(frozen=True, kw_only=True, eq=False)
class Finalist:
    """A point whose answers to validation prompts were generated and judged.

    Attributes:
        point: the edit.
        training, validation: its cheap scores; None of training prompts where its sketch lost.
        sketch: the cheaper score on validation prompts.
        judged: its answers, at the longest length that was generated for it.
        recipe: the file that reproduces it; None where none was written, as of those off the front but the plain one.
    """

    point: Point
    training: Score | None
    validation: Score
    sketch: Score
    judged: JudgedPoint
    recipe: Path | None = None

    @property
    def tokens(self) -> int:
        """The longest answers that were judged, tokens."""
        return self.judged.sets[REFUSED].longest

    @property
    def place(self) -> FrontPoint:
        """By its judged rates, and its damage on validation prompts."""
        return self.judged.front_point(self.validation.damage)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; directions are in the recipe alone."""
        return {
            "digest": self.point.digest,
            "origin": self.point.origin,
            "facts": dict(self.point.facts),
            "directions": len(self.point.rows),
            "strengths": self.point.strengths.kernels.model_dump(),
            "keep_norms": self.point.keep_norms,
            "embeddings": self.point.embeddings,
            "cheap": {
                "training": None if self.training is None else _cheap(self.training),
                "validation": _cheap(self.validation),
                "sketch": _cheap(self.sketch),
            },
            "judged": self.judged.to_dict(),
            "recipe": None if self.recipe is None else str(self.recipe),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult(Shown):
    """A finished search.

    Attributes:
        path: its folder.
        front: the points that no other beats by judged rates and damage, by rising damage.
        picked: the one that the rule picks, and why.
        plain: the full ablation of the direction that `find` chose.
        others: all else that was judged.
        tau: of the score's refusal and the judged rate, on all that were judged, on the same prompts, and at the first
            length.
        sketch_tau: the same of the sketch's refusal.
        candidates: everything that was scored.
        facts: of prompts, places, costs of each step and rung; JSON values.
        warnings: sentences that the user should read.
        seconds: of this process, by step.
    """

    path: Path
    front: tuple[Finalist, ...]
    picked: Pick
    plain: Finalist
    others: tuple[Finalist, ...]
    tau: Tau
    sketch_tau: Tau
    candidates: Sequence[Candidate]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    def __repr__(self) -> str:
        return f"SearchResult({str(self.path)!r}, front of {len(self.front)}, picked {self.picked.point.digest})"

    @property
    def chosen(self) -> Finalist:
        """The point that is picked."""
        digest = self.picked.point.digest
        return next(each for each in self.front if each.point.digest == digest)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "path": str(self.path),
            "front": [each.to_dict() for each in self.front],
            "picked": self.picked.to_dict(),
            "plain": self.plain.to_dict(),
            "others": [each.to_dict() for each in self.others],
            "tau": self.tau.to_dict(),
            "sketch_tau": self.sketch_tau.to_dict(),
            "candidates": len(self.candidates),
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
            "seconds": dict(self.seconds),
        }


def _cheap(score: Score) -> dict[str, float | None]:
    return {"refusal": score.refusal, "damage": score.damage, "over_refusal": score.over_refusal}
