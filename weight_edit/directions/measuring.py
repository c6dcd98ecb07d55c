"""The scores of candidates, measured on a search's validation prompts."""

from collections.abc import Sequence

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores, released_scores
from weight_edit.directions.find_folder import SearchFolder
from weight_edit.directions.problem import Problem
from weight_edit.directions.scores import CandidateScore, score_candidates, with_similarity
from weight_edit.plan.hooks import hooks_of


def measured(
    problem: Problem,
    candidates: Sequence[Candidate],
    *,
    similarity: bool = False,
    released: bool = False,
    layers: int | None = None,
    what: str = "candidates",
    kept: SearchFolder | None = None,
) -> list[CandidateScore]:
    """The scores of each candidate.

    Args:
        similarity: also the one that needs no refusal tokens (COSMIC).
        released: that one as its authors' code computes it.
        layers: how many of the model's, from the first, may be chosen: candidates of others are not scored.
        what: names the bar.
        kept: what was measured before, and where the rest is written as it comes.
    """
    hooks = hooks_of(problem.model)
    scores = score_candidates(
        problem.model,
        candidates,
        target=problem.opened([ids for sample in problem.targets for ids in sample.validation]),
        baseline=problem.opened(problem.baseline.validation),
        tokens=problem.tokens,
        ablation_hooks=hooks,
        protected=problem.opened([ids for sample in problem.protected for ids in sample.validation]),
        batch_size=problem.batch_size,
        layers=layers,
        what=what,
        known=None if kept is None else kept.scores,
        done=None if kept is None else kept.note_score,
    )
    if not similarity:
        return scores
    similar = (released_scores if released else cosmic_scores)(
        problem,
        candidates,
        hooks,
        layers=layers,
        known=None if kept is None else kept.similarities,
        done=None if kept is None else kept.note_similarity,
    )
    return [with_similarity(score, value) for score, value in zip(scores, similar, strict=True)]
