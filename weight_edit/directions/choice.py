"""The choice among scored candidates, and the record of that choice; no model is needed."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from weight_edit.directions.candidate import Candidate, table_of
from weight_edit.directions.directions import Directions
from weight_edit.directions.find_folder import Searched, SearchFolder
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
    select,
)
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError


def rule_for(finder: Finder, rule: SelectionRule | None) -> SelectionRule:
    """The rule, with the method's defaults where the caller left an entry open."""
    rule = SelectionRule() if rule is None else rule
    rule = rule if rule.select is not None else replace(rule, select=finder.select)
    return rule if finder.induces else replace(rule, min_induce=None)


def taken(scores: Sequence[CandidateScore], rule: SelectionRule, layers: int) -> CandidateScore | None:
    """The candidate that the rule selects, else the one that misses the bounds least.

    None where no candidate has scores at all.
    """
    return select(scores, rule, layers).chosen or least_bad(scores, rule, layers)


def chosen(kept: SearchFolder, rule: SelectionRule, *, best_effort: bool = False) -> Directions:
    """The chosen directions of a search, with their whole record.

    Args:
        kept: complete for the rule.
        rule: see `rule_for`.
        best_effort: take the candidate that misses the bounds least where none keeps them.

    Raises:
        UnsupportedError: no candidate keeps the bounds; `details` has the table, the best first.
    """
    searched = kept.searched
    assert searched is not None
    scores = kept.table(rule.layers(searched.layers))
    selection = select(scores, rule, searched.layers)
    best = taken(scores, rule, searched.layers)
    if selection.chosen is None and (best is None or not best_effort):
        raise _none(scores, selection, rule, searched)
    assert best is not None
    warnings = list(searched.warnings)
    missed = selection.rejections.get((best.position, best.layer))
    if missed:
        warnings.append(f"no candidate keeps all bounds; the least bad one was taken: {missed}")
    number = scores.index(best)
    found, apart = searched.candidates[number], searched.separations[number]
    control = _control(kept.controls, best)
    if control is None:
        warnings.append(f"no random direction of rank {found.rank} was measured for comparison")
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
        "scores": _rows(scores, selection),
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
        return sum(failure.excess for failure in found), *merit(score, rule.select)

    counts = ", ".join(f"{bound} for {count}" for bound, count in selection.counts.items())
    any_found = any(score.norm != 0.0 for score in scores)
    taking = "loosen a bound, or pass `best_effort=True` (in a recipe, best_effort: true)"
    advice = taking if any_found else "no direction was found"
    if NOT_FINITE in selection.counts and searched.facts.get("dtype") == "float16":
        advice = "float16 ends at 65504, which an edit may exceed: load the model in bfloat16 or float32 (`dtype`)"
    error = UnsupportedError(
        f"none of {len(scores)} candidates keeps the bounds: {counts}; {advice}", option=("best_effort", "dtype")
    )
    error.details = {"rule": asdict(rule), "scores": _rows(sorted(scores, key=badness), selection)}
    return error


def _rows(scores: Sequence[CandidateScore], selection: Selection) -> list[dict[str, Any]]:
    return [score.to_dict() | {"rejected": selection.rejections.get((score.position, score.layer))} for score in scores]
