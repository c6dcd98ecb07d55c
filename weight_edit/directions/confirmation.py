"""The confirmation of a choice: judged answers under the edits of the chosen candidate and of the next best."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.find_folder import SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.problem import Problem
from weight_edit.directions.scores import CandidateScore
from weight_edit.evaluation.comparisons import UNTOLD, Comparison, family
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime.hooks import Hook, addition_hook, hooked
from weight_edit.runtime.loading import Model

OTHERS = 2
"""Candidates that are confirmed beside the chosen one."""

_BROKEN = (Verdict.EMPTY, Verdict.LOOPING, Verdict.OFF_TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The verdicts on answers of the unedited model and under candidates' edits, to the same prompts.

    Attributes:
        by: "ablate": to target prompts, with the directions ablated, which should lower refusal; or "add": to baseline
            prompts, with the difference added at its layer, which should raise it.
        judge: the judge's name.
        base: verdicts on the unedited model's answers.
        edited: by candidate, those under its edit; the one that the scores chose comes first.
    """

    by: str
    judge: str
    base: Sequence[Verdict]
    edited: Mapping[int, Sequence[Verdict]]

    @cached_property
    def changes(self) -> Mapping[int, Comparison]:
        """By candidate, the refusal rate under its edit minus the unedited model's, on the same prompts.

        p is McNemar's exact one, corrected by Holm's rule over the candidates, of which any may be taken.
        """
        before = _refused(self.base)
        found = [paired_difference(before, _refused(verdicts)).comparison for verdicts in self.edited.values()]
        return dict(zip(self.edited, family(found), strict=True))

    def works(self, number: int) -> bool:
        """Whether the edit moves refusal the way it should."""
        told = self.changes[number]
        return told.told and (told.value < 0) == (self.by == "ablate")

    @property
    def first(self) -> int:
        """The candidate that the scores chose."""
        return next(iter(self.edited))

    @property
    def taken(self) -> int:
        """The candidate to take: the first that works, else the one that the scores chose."""
        return next((number for number in self.edited if self.works(number)), self.first)

    @property
    def failure(self) -> str | None:
        """In a few words that no candidate moves refusal as it should; None where the one that is taken does."""
        if self.works(self.taken):
            return None
        before, after = _count(self.base), _count(self.edited[self.taken])
        told = self.changes[self.taken]
        return (
            f"{before} of {len(self.base)} refused without the edit and {after} with it (p = {told.p:.2g}, judge "
            f"{self.judge[:60]})"
        )

    def warnings(self, table: Sequence[CandidateScore]) -> list[str]:
        """What the user should read: nothing works, another candidate was taken, or answers are broken."""
        way = "lower" if self.by == "ablate" else "raise"
        found = []
        if not self.works(self.first):
            before, after = (
                Rate(_count(self.base), len(self.base)),
                Rate(_count(self.edited[self.first]), len(self.base)),
            )
            told = self.changes[self.first]
            verdict = UNTOLD if not told.told else "it moved the other way"
            found.append(
                f"the candidate chosen by scores, {_place(table[self.first])}, does not {way} refusal: judged answers "
                f"refuse {before.count} of {before.total} without the edit and {after.count} with it "
                f"(p = {told.p:.2g}: {verdict})"
            )
            if self.taken != self.first:
                after = Rate(_count(self.edited[self.taken]), len(self.base))
                found.append(
                    f"the next candidate that does was taken in its place: {_place(table[self.taken])}, "
                    f"{after.count} of {after.total} refused"
                )
            elif len(self.edited) > 1:
                found.append(f"neither do the {len(self.edited) - 1} next best: these directions may do nothing")
        broken = sum(verdict in _BROKEN for verdict in self.edited[self.taken])
        if broken > sum(verdict in _BROKEN for verdict in self.base) and broken * 4 > len(self.base):
            found.append(
                f"{broken} of {len(self.base)} answers under the edit of {_place(table[self.taken])} are loops, "
                "empty or off the template: less refusal may be damage"
            )
        return found

    def to_dict(self, table: Sequence[CandidateScore]) -> dict[str, Any]:
        """JSON values: rates and paired differences from the unedited model, with intervals; which was taken."""
        return {
            "by": self.by,
            "judge": self.judge,
            "count": len(self.base),
            "base": _rates(self.base),
            "candidates": [
                {
                    "layer": table[number].layer,
                    "position": table[number].position,
                    **_rates(verdicts),
                    "difference": self.changes[number].to_dict(),
                    "works": self.works(number),
                    "taken": number == self.taken,
                }
                for number, verdicts in self.edited.items()
            ],
        }


def confirmation_key(request: FindRequest) -> str:
    """What the verdicts of a confirmation depend on beside the search's inputs, as text."""
    judge = [request.spec.kind, dict(request.spec.options)]
    return json.dumps([request.confirm_by, request.confirm, judge, request.max_new_tokens], sort_keys=True)


def to_confirm(best: Sequence[int], candidates: Sequence[Candidate], request: FindRequest) -> list[int]:
    """The candidates whose edits are confirmed, the chosen one first; none where no confirmation is asked for.

    Args:
        best: the numbers of those that may be chosen, the best first.
    """
    if request.confirm is None:
        return []
    able = [n for n in best if request.confirm_by == "ablate" or _can_be_added(candidates[n])]
    return able[: 1 + OTHERS]


def confirmed(kept: SearchFolder, numbers: Sequence[int], request: FindRequest) -> Confirmation | None:
    """The confirmation of these candidates, as far as it is kept; None where a part is missing or nobody asks."""
    known = kept.confirmed.get(confirmation_key(request), {})
    if not numbers or not all(number in known for number in (None, *numbers)):
        return None
    return Confirmation(
        by=request.confirm_by,
        judge=str(request.spec),
        base=[Verdict(text) for text in known[None]],
        edited={number: [Verdict(text) for text in known[number]] for number in numbers},
    )


def confirm_candidates(kept: SearchFolder, numbers: Sequence[int], problem: Problem, request: FindRequest) -> None:
    """Have the model answer validation prompts without and with each candidate's edit, and keep the verdicts.

    Raises:
        UsageError: as `Speaker.answers`.
    """
    assert kept.searched is not None
    assert request.confirm is not None
    assert problem.format is not None
    speaker = Speaker(
        model=problem.model, chat=problem.format, judge=request.spec, max_new_tokens=request.max_new_tokens
    )
    samples = problem.targets if request.confirm_by == "ablate" else (problem.baseline,)
    # By turns of the samples, so that each target has a part.
    asked = [
        (sample.validation[row], sample.held_texts[row])
        for row in range(max(len(sample.validation) for sample in samples))
        for sample in samples
        if row < len(sample.validation)
    ][: request.confirm]
    key = confirmation_key(request)
    for number in (None, *numbers):
        if number in kept.confirmed.get(key, {}):
            continue
        hooks = [] if number is None else _hooks(problem.model, kept.searched.candidates[number], request.confirm_by)
        what = "without an edit" if number is None else f"under {_place(kept.searched.candidates[number])}"
        with hooked(problem.model.model, hooks):
            said = speaker.answers(
                [ids for ids, _ in asked], [text for _, text in asked], description=f"answers {what}"
            )
        kept.note_confirmed(key, number, [answer.verdict.value for answer in said])


def _hooks(model: Model, candidate: Candidate, by: str) -> list[Hook]:
    if by == "ablate":
        return ablation_hooks(model, candidate.rows)
    assert candidate.layer is not None
    assert candidate.vector is not None
    return [addition_hook(model, candidate.layer, candidate.vector.float())]


def _can_be_added(candidate: Candidate) -> bool:
    return candidate.layer is not None and candidate.vector is not None


def _refused(verdicts: Sequence[Verdict]) -> list[bool]:
    return [verdict is Verdict.REFUSED for verdict in verdicts]


def _count(verdicts: Sequence[Verdict]) -> int:
    return sum(_refused(verdicts))


def _rates(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counts = Counter(verdicts)
    return {
        "refusal": Rate(counts[Verdict.REFUSED], len(verdicts)).to_dict(),
        "verdicts": {kind.value: counts[kind] for kind in Verdict},
    }


def _place(score: CandidateScore | Candidate) -> str:
    position = "mean over all tokens" if score.position is None else f"position {score.position}"
    return position if score.layer is None else f"layer {score.layer}, {position}"
