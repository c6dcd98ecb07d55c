"""Candidates of a problem, measured on its validation prompts."""

from collections.abc import Sequence
from dataclasses import replace

from weight_edit.directions.ablating import hooks_of
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores
from weight_edit.directions.problem import Problem
from weight_edit.directions.scores import CandidateScore, score_candidates


def measured(problem: Problem, candidates: Sequence[Candidate], *, similarity: bool = False) -> list[CandidateScore]:
    """The scores of each candidate.

    Args:
        similarity: also the one that needs no refusal tokens (COSMIC).
    """
    hooks = hooks_of(problem.model)
    scores = score_candidates(
        problem.model,
        candidates,
        problem.opened([ids for sample in problem.targets for ids in sample.validation]),
        problem.opened(problem.baseline.validation),
        problem.tokens,
        hooks,
        protected=problem.opened([ids for sample in problem.protected for ids in sample.validation]),
        batch_size=problem.batch_size,
    )
    if not similarity:
        return scores
    similar = cosmic_scores(problem, candidates, hooks)
    return [replace(score, cosmic=value) for score, value in zip(scores, similar, strict=True)]
