"""Directions in the residual stream: how they are found, scored, chosen and kept."""

from weight_edit.directions.artifact import Directions, load_directions
from weight_edit.directions.find import ablation_hooks, find_directions
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import Selection, SelectionRule, select

__all__ = [
    "CandidateScore",
    "Directions",
    "Selection",
    "SelectionRule",
    "ablation_hooks",
    "find_directions",
    "load_directions",
    "select",
]
