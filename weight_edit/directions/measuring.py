"""The scores of candidates, measured on a search's validation prompts."""

from collections.abc import Callable, Mapping, Sequence

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores, released_scores
from weight_edit.directions.problem import Problem
from weight_edit.directions.scores import (
    SCORES,
    CandidateScore,
    Scorer,
    Similarity,
    Values,
    score_of,
    with_similarity,
    worth_scoring,
)
from weight_edit.directions.selection import RELEASED, SelectionRule, ranked
from weight_edit.directions.stages import SIMILARITY, Stage, Stages
from weight_edit.plan.hooks import hooks_of

_NAMES = {"kl": "KL", "protected_kl": "KL", "induce": "induce scores", "bypass": "bypass scores"}


class Measuring:
    """A search's model, asked for scores of candidates stage by stage.

    Args:
        released: the similarity as its authors' code computes it.
    """

    def __init__(self, problem: Problem, *, released: bool = False) -> None:
        self.problem, self.released = problem, released
        self._scorer: Scorer | None = None

    @property
    def scorer(self) -> Scorer:
        """The model with the validation prompts; what it says without an edit is asked once."""
        if self._scorer is None:
            problem = self.problem
            self._scorer = Scorer(
                problem.model,
                target=problem.opened([ids for sample in problem.targets for ids in sample.validation]),
                baseline=problem.opened(problem.baseline.validation),
                tokens=problem.tokens,
                ablation_hooks=hooks_of(problem.model),
                protected=problem.opened([ids for sample in problem.protected for ids in sample.validation]),
                batch_size=problem.batch_size,
            )
        return self._scorer

    def run(
        self,
        stage: Stage,
        candidates: Sequence[Candidate],
        done: Callable[[int, Values], None],
        similar: Callable[[int, Similarity], None],
    ) -> None:
        """Measure what a stage asks for.

        Args:
            candidates: of the search, of which the stage names some by number.
            done: is given each one's number and values as soon as they are measured; similar: likewise its similarity.
        """
        asked = {number: candidates[number] for number in stage.numbers}
        if stage.names == (SIMILARITY,):
            self.similarities(asked, similar, before=stage.before)
            return
        what = _NAMES[stage.names[0]]
        self.scorer.measure(asked, stage.names, done, what=f"{what} of candidates", before=stage.before)

    def similarities(
        self, asked: Mapping[int, Candidate], done: Callable[[int, Similarity], None], *, before: int = 0
    ) -> None:
        """Measure the score that needs no refusal tokens (COSMIC)."""
        numbers = list(asked)
        (released_scores if self.released else cosmic_scores)(
            self.problem,
            list(asked.values()),
            hooks_of(self.problem.model),
            done=lambda index, value: done(numbers[index], value),
            before=before,
        )


def measured(
    problem: Problem,
    candidates: Sequence[Candidate],
    *,
    similarity: bool = False,
    what: str = "candidates",
    measuring: Measuring | None = None,
) -> list[CandidateScore]:
    """All scores of each candidate.

    Args:
        similarity: also the one that needs no refusal tokens (COSMIC).
        what: names the bar.
        measuring: of this problem, if it was asked before: it knows what the unedited model says.
    """
    measuring = Measuring(problem) if measuring is None else measuring
    asked = {n: candidate for n, candidate in enumerate(candidates) if worth_scoring(candidate, len(problem.layers))}
    values: dict[int, Values] = {}
    similarities: dict[int, Similarity] = {}
    measuring.scorer.measure(asked, SCORES, values.__setitem__, what=what)
    if similarity:
        measuring.similarities(asked, similarities.__setitem__)
    return [_score(n, candidate, values, similarities) for n, candidate in enumerate(candidates)]


def staged(problem: Problem, candidates: Sequence[Candidate], rule: SelectionRule) -> list[CandidateScore]:
    """The scores of candidates as far as a choice by the rule needs them, the least bad of all included."""
    measuring = Measuring(problem, released=rule.select == RELEASED)
    stages = Stages(
        candidates=candidates,
        rule=rule,
        n_layers=len(problem.layers),
        tokens=bool(problem.tokens),
        protected=bool(problem.protected),
    )
    values: dict[int, Values] = {}
    similarities: dict[int, Similarity] = {}

    def note(number: int, found: Values) -> None:
        values[number] = {**values.get(number, {}), **found}

    while True:
        table = [_score(n, candidate, values, similarities) for n, candidate in enumerate(candidates)]
        stage = stages.next(table)
        if stage is None and not ranked(table, rule, stages.n_layers):
            stage = stages.of_least_bad(table, 1)
        if stage is None:
            return table
        measuring.run(stage, candidates, note, similarities.__setitem__)


def _score(
    number: int, candidate: Candidate, values: Mapping[int, Values], similarities: Mapping[int, Similarity]
) -> CandidateScore:
    return with_similarity(score_of(candidate, values.get(number, {})), similarities.get(number))
