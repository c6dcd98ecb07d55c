"""Edits as pure tensor algebra: no files, no models."""

from weight_edit.edits.ablate import ablation
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.orthonormal import orthonormal_rows
from weight_edit.edits.through_norm import before_norm

__all__ = ["LowRankMap", "ablation", "before_norm", "orthonormal_rows"]
