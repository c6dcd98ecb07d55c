"""The choice among scored candidates, and the record of that choice; no model is needed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from weight_edit.directions.candidate import Candidate, table_of
from weight_edit.directions.certainty import MOST, Certainty, certainty, intervals, straddled, to_dict
from weight_edit.directions.confirmation import OTHERS, Confirmation, confirmed, to_confirm
from weight_edit.directions.directions import Directions
from weight_edit.directions.find_folder import Searched, SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.loud import said
from weight_edit.directions.registry import Finder
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import (
    NOT_FINITE,
    Selection,
    SelectionRule,
    all_failures,
    least_bad,
    merit,
    nearest,
    ranked,
    select,
)
from weight_edit.directions.stages import Stage, Stages
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.evaluation.means import mean_difference


def rule_for(finder: Finder, rule: SelectionRule | None) -> SelectionRule:
    """The rule, with the method's defaults where the caller left an entry open."""
    rule = SelectionRule() if rule is None else rule
    rule = rule if rule.select is not None else replace(rule, select=finder.select)
    return rule if finder.induces else replace(rule, min_induce=None)


@dataclass(frozen=True)
class Choice:
    """The state of a choice: the table as it is, and what is still to be measured before it is made.

    That is first what tells the candidates that may be chosen (`stages`), then those of them that cannot be told apart
    on more prompts, and in the end what the best ones lack.

    Attributes:
        kept: the search.
        request: what was asked for.
        rule: see `rule_for`.
    """

    kept: SearchFolder
    request: FindRequest
    rule: SelectionRule

    @property
    def searched(self) -> Searched:
        """What the method found."""
        assert self.kept.searched is not None
        return self.kept.searched

    @property
    def measured(self) -> list[int]:
        """The candidates that were measured on more prompts."""
        return list(self.kept.more.get(self.request.more, {}))

    @cached_property
    def table(self) -> list[CandidateScore]:
        """The scores of all candidates, over all prompts that each was measured on."""
        return self.kept.table(self.rule.layers(self.searched.layers), self.request.more)

    @cached_property
    def sure(self) -> Certainty:
        """How sure the choice is."""
        return certainty(self.table, self.rule, self.searched.layers, self.measured)

    @cached_property
    def stages(self) -> Stages:
        """The stages of the selection."""
        return Stages(
            candidates=self.searched.candidates,
            rule=self.rule,
            n_layers=self.searched.layers,
            tokens=self.kept.metering is not None and bool(self.kept.metering.tokens),
            protected=bool(self.request.protect),
        )

    @cached_property
    def needed(self) -> Stage | None:
        """The scores that the choice needs next, on the prompts that were drawn."""
        found = self.stages.next(self.table)
        if found is not None or self.wanted or self.selection.chosen is not None or not self.request.best_effort:
            return found
        found = self.stages.of_least_bad(self.table, 1)
        if found is None and self.request.confirm is not None:
            added = self.request.confirm_by == "add"
            found = self.stages.of_least_bad(self.table, 1 + OTHERS, added=added)
        return found

    @cached_property
    def lacking(self) -> Stage | None:
        """The scores that the best ones have not: those that bound nothing, for the record alone."""
        if self.needed is not None or self.wanted or (self.selection.chosen is None and not self.request.best_effort):
            return None
        best = [] if self.best is None else [self._number(self.best)]
        return self.stages.of_some(self.table, self.to_confirm or best)

    @cached_property
    def wanted(self) -> list[int]:
        """Candidates to be measured on more prompts: not told from the best, or from a bound; none before a stage."""
        if self.request.more == 0 or self.kept.none_left or self.stages.next(self.table) is not None:
            return []
        return [n for n in self.sure.contenders if n not in self.measured][: MOST - len(self.measured)]

    @cached_property
    def selection(self) -> Selection:
        """What the rule chooses."""
        return select(self.table, self.rule, self.searched.layers, self.measured)

    @cached_property
    def best(self) -> CandidateScore | None:
        """The candidate that the rule selects, else that which misses the bounds least; None where none has scores."""
        return self.selection.chosen or least_bad(self.table, self.rule, self.searched.layers)

    @property
    def to_confirm(self) -> list[int]:
        """The candidates to confirm by judged answers, the chosen one first."""
        best = ranked(self.table, self.rule, self.searched.layers, self.measured)
        if not best and self.request.best_effort:
            best = nearest(self.table, self.rule, self.searched.layers)
        return to_confirm(best, self.searched.candidates, self.request)

    @property
    def confirmation(self) -> Confirmation | None:
        """The confirmation of these, as far as it is whole."""
        return confirmed(self.kept, self.to_confirm, self.request)

    @property
    def number(self) -> int | None:
        """The number of the candidate to take, after a confirmation; None where none has scores."""
        found = self.confirmation
        if found is not None:
            return found.taken
        return None if self.best is None else self._number(self.best)

    def _number(self, score: CandidateScore) -> int:
        return next(n for n, each in enumerate(self.table) if each is score)

    @property
    def made(self) -> bool:
        """Whether nothing is left to measure, so that no model is needed."""
        if self.needed is not None or self.wanted or not self.kept.controls:
            return False
        return not self.to_confirm or self.confirmation is not None


def is_made(kept: SearchFolder, rule: SelectionRule, request: FindRequest) -> bool:
    """Whether a search is complete for a choice by this rule, so that no model is needed."""
    return kept.searched is not None and Choice(kept, request, rule).made


def chosen(kept: SearchFolder, rule: SelectionRule, request: FindRequest) -> Directions:
    """The chosen directions of a search, with their whole record.

    Args:
        kept: complete for the rule.
        rule: see `rule_for`.
        request: what was asked for; with `best_effort` the candidate that misses the bounds least is taken where none
            keeps them.

    Raises:
        UnsupportedError: no candidate keeps the bounds; `details` has the table, the best first.
    """
    choice = Choice(kept, request, rule)
    searched, scores, selection = choice.searched, choice.table, choice.selection
    number = choice.number
    if selection.chosen is None and (number is None or not request.best_effort):
        raise _none(scores, selection, rule, searched)
    assert number is not None
    best = scores[number]
    warnings = list(searched.warnings)
    missed = selection.rejections.get((best.position, best.layer))
    if missed:
        warnings.append(f"no candidate keeps all bounds; the least bad one was taken: {missed}")
    warnings += _doubts(choice, best)
    confirmation = choice.confirmation
    if confirmation is not None:
        warnings += confirmation.warnings(scores)
    elif request.confirm is not None:
        warnings.append(f"nothing was confirmed: no candidate can be edited by `confirm_by={request.confirm_by!r}`")
    found, apart = searched.candidates[number], searched.separations[number]
    control = _control(kept.controls, best)
    if control is None:
        warnings.append(f"no random direction of rank {found.rank} was measured for comparison")
    elif rule.select == "bypass" and not _beats(best, control):
        warnings.append(
            "ablating what was chosen lowers the refusal score no more than a random direction does "
            f"({best.bypass:.2f} against {control.bypass:.2f}): by first tokens it does not carry the behaviour, as a "
            "decoy does not; let the model answer before it is chosen (`confirm`), or find again on the edited model"
        )
    loud = _loud(searched, found)
    if loud is not None:
        warnings.append(said(loud))
    tensors = dict(found.tensors)
    if found.vector is not None:
        tensors.setdefault("vector", found.vector)
    if apart is not None:
        apart.complain(warnings.append)
    if found.layer is not None and found.position in searched.positions:
        place = searched.positions.index(found.position), found.layer
        tensors.setdefault("baseline_mean", searched.baseline_mean[place])
        tensors.setdefault("target_mean", searched.target_mean[place])
    metadata = {
        **searched.facts,
        "layer": found.layer,
        "position": found.position,
        "rule": asdict(rule),
        "scores": _rows(scores, selection, rule),
        "certainty": to_dict(choice.sure, scores, choice.measured, request.more),
        "confirmation": None if confirmation is None else confirmation.to_dict(scores),
        "unconfirmed": None if confirmation is None else confirmation.failure,
        "control": None if control is None else control.to_dict(),
        "facts": dict(found.facts),
        "best_effort": bool(missed),
        "missed": missed,
        "loud": loud,
        "separation": None if apart is None else apart.to_dict(),
        "warnings": warnings,
    }
    rows = torch.from_numpy(orthonormal_rows(found.rows)).float()
    table = table_of(list(searched.candidates), len(searched.positions), searched.layers, searched.width)
    return Directions(rows, table, metadata, {name: tensor.float() for name, tensor in tensors.items()})


def _doubts(choice: Choice, best: CandidateScore) -> list[str]:
    """Sentences on what a choice by means over prompts leaves open."""
    found = []
    ties, compared = choice.sure.ties, choice.sure.compared
    if ties:
        count = len(best.values.get("bypass", ()))
        found.append(
            f"{len(ties)} of {compared} other candidates that keep the bounds cannot be told from the chosen one by "
            f"their bypass scores on {count} prompts"
        )
    for name in straddled(best, choice.rule):
        around = intervals(best)[name]
        found.append(
            f"whether the chosen candidate keeps the bound on {_NAMES[name]} cannot be told: {getattr(best, name):.3g} "
            f"[{around[0]:.3g}, {around[1]:.3g}] on {len(best.values[name])} prompts"
        )
    return found


def _beats(best: CandidateScore, control: CandidateScore) -> bool:
    """Whether ablating a candidate lowers the refusal score more than a random direction, as far as both have one."""
    if best.bypass is None or control.bypass is None:
        return True
    ours, random = best.values.get("bypass", ()), control.values.get("bypass", ())
    if len(ours) >= 3 and len(ours) == len(random):
        apart = mean_difference(random, ours)
        return apart.told and apart.value < 0
    # What was measured on more prompts has no pairs.
    return best.bypass < control.bypass


_NAMES = {"kl": "KL", "protected_kl": "KL of protected prompts", "induce": "the induce score"}


def _control(controls: Sequence[CandidateScore], best: CandidateScore) -> CandidateScore | None:
    """The scores of the random directions of the same number.

    Adding them was measured at one place and length only, so elsewhere `induce` is None.
    """
    alike = [score for score in controls if score.rank == max(1, best.rank)]
    at = best.position, best.layer, best.norm
    exact = [score for score in alike if (score.position, score.layer) == at[:2] and same_length(score.norm, at[2])]
    if exact or not alike:
        return exact[0] if exact else None
    return replace(alike[0], position=best.position, layer=best.layer, induce=None, norm=best.norm)


def _loud(searched: Searched, found: Candidate) -> dict[str, Any] | None:
    """The loud coordinate at a candidate's layer: as its finder says, or as it was measured; None where none is."""
    known = found.facts.get("loud")
    measured = [row for row in searched.facts.get("loud_layers", ()) if row["layer"] == found.layer]
    return known or next(iter(measured), None)


def same_length(a: float, b: float) -> bool:
    """Whether two lengths are equal up to the rounding of a product with a unit vector."""
    return abs(a - b) <= 1e-9 * max(a, b)


def _none(
    scores: Sequence[CandidateScore], selection: Selection, rule: SelectionRule, searched: Searched
) -> UnsupportedError:
    missed = all_failures(scores, rule, searched.layers)

    def badness(score: CandidateScore) -> tuple[float, ...]:
        found = missed[score.position, score.layer]
        # Of what an early stage rejects nobody knows by how much it would miss later bounds.
        unknown = [score.induce, score.kl, score.bypass, score.cosmic].count(None)
        return unknown, sum(failure.excess for failure in found), *merit(score, rule.select)

    counts = ", ".join(f"{bound} for {count}" for bound, count in selection.counts.items())
    any_found = any(score.norm != 0.0 for score in scores)
    loosen = "loosen a bound (`resume=True` measures nothing twice)"
    taking = f"{loosen}, or pass `best_effort=True` (in a recipe, best_effort: true)"
    advice = taking if any_found else "no direction was found"
    if NOT_FINITE in selection.counts and searched.facts.get("dtype") == "float16":
        advice = "float16 ends at 65504, which an edit may exceed: load the model in bfloat16 or float32 (`dtype`)"
    error = UnsupportedError(
        f"none of {len(scores)} candidates keeps the bounds: {counts}; {advice}",
        option=("best_effort", "resume", "dtype"),
    )
    error.details = {"rule": asdict(rule), "scores": _rows(sorted(scores, key=badness), selection, rule)}
    return error


def _rows(scores: Sequence[CandidateScore], selection: Selection, rule: SelectionRule) -> list[dict[str, Any]]:
    return [
        {
            **score.to_dict(),
            "intervals": intervals(score),
            "prompts": max(map(len, score.values.values()), default=0),
            "untold_bounds": straddled(score, rule),
            "rejected": selection.rejections.get((score.position, score.layer)),
            "stage": selection.stages.get((score.position, score.layer)),
        }
        for score in scores
    ]
