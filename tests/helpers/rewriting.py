"""A rewrite in one call: plan it, then write it into an empty folder."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult, write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter


def rewrite(source: Checkpoint, out: Path, edits: Collection[TensorWriter] = (), **changes: Any) -> RewriteResult:
    """Write every file of `source` into the empty folder `out`, with edits; `changes` are those of `plan_rewrite`."""
    plan = plan_rewrite(source, edits, **changes)
    if any(out.iterdir()):
        raise ValueError(f"{out} must be an existing, empty folder")
    return write_checkpoint(plan, out)
