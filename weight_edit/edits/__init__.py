"""Edits as pure tensor algebra: no files, no models. Factors are numpy arrays; torch is imported where it is used."""

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.orthonormal import orthonormal_rows
from weight_edit.edits.projection import ablation
from weight_edit.edits.through_norm import before_norm

__all__ = ["LowRankMap", "TensorEdit", "ablation", "before_norm", "orthonormal_rows"]
