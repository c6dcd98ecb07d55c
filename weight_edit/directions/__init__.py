"""Directions in the residual stream: how they are found, scored, chosen and kept."""

from typing import TYPE_CHECKING

from weight_edit.lazy import lazy

if TYPE_CHECKING:
    from weight_edit.directions.artifact import Directions, load_directions
    from weight_edit.directions.file import DirectionRows, read_rows
    from weight_edit.directions.find import ablation_hooks, find_directions
    from weight_edit.directions.scores import CandidateScore
    from weight_edit.directions.selection import Selection, SelectionRule, select

__all__ = [
    "CandidateScore",
    "DirectionRows",
    "Directions",
    "Selection",
    "SelectionRule",
    "ablation_hooks",
    "find_directions",
    "load_directions",
    "read_rows",
    "select",
]

_WHERE = {
    "Directions": "artifact",
    "load_directions": "artifact",
    "DirectionRows": "file",
    "read_rows": "file",
    "ablation_hooks": "find",
    "find_directions": "find",
    "CandidateScore": "scores",
    "Selection": "selection",
    "SelectionRule": "selection",
    "select": "selection",
}

__getattr__ = lazy(__name__, _WHERE)
