"""The memory at the peak of a find, in parts that are there together."""

from dataclasses import asdict, dataclass
from typing import Any

from weight_edit.costs.model_size import ModelSize
from weight_edit.costs.workload import Workload
from weight_edit.runtime.memory import MOST_SEQUENCES

PROGRAM = 500_000_000
"""Bytes that Python, torch and transformers take before any model."""

_WIDEST, _STREAMS = 3, 6
"""Vectors that a block holds of a token at once: as wide as its widest map, and as wide as the stream."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes at the peak of a find, of one process.

    Attributes:
        program: Python and its libraries.
        weights: all of the model's; offloaded, its largest block, of a mixture's experts one at a time.
        embeddings: rows in use of a model that is offloaded.
        hidden_states: the stream and what a block makes of it; offloaded, the stream of all prompts and edits of a
            request, for the batches wait for one another.
        keys_and_values: of the prompts' common prefix under each edit of a batch, or of the answers in a batch.
        logits: of a batch, and the log-probabilities that candidates are compared with.
        activations: of all prompts at all positions and layers, float32, with a copy in float64 of the larger class.
    """

    program: int
    weights: int
    embeddings: int
    hidden_states: int
    keys_and_values: int
    logits: int
    activations: int

    @property
    def total(self) -> int:
        """All of it together: not every part is at its largest at the same time."""
        return sum(asdict(self).values())

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "total": self.total}


def memory_need(size: ModelSize, work: Workload) -> MemoryNeed:
    """The memory that a find with these settings takes where none is short: a batch is made smaller where it is."""
    itemsize, prefix = size.itemsize, work.prefix
    longest = max(work.target.mean, work.baseline.mean)
    rows = min(MOST_SEQUENCES, work.n_validation * work.candidates[1])
    waiting = work.candidates[1] * (prefix + work.n_validation * (longest - prefix)) if work.offload else 0
    inside = rows * longest * (_WIDEST * size.widest + _STREAMS * size.d_model)
    answered = work.answers * work.sets if work.offload else min(MOST_SEQUENCES, work.answers * work.sets)
    kept = size.counts.kept + size.counts.kept_per_token * (longest + work.max_new_tokens)
    drawn = work.n_train + work.n_validation
    used = min(size.embedding_bytes, drawn * work.sets * longest * size.row_bytes)
    places = work.positions * size.layers * size.d_model
    most = work.n_train * work.targets
    return MemoryNeed(
        program=PROGRAM,
        weights=size.unit_bytes if work.offload else size.parameter_bytes,
        embeddings=round(used) if work.offload else 0,
        hidden_states=round((inside + waiting * size.d_model) * itemsize),
        keys_and_values=round(answered * kept * itemsize),
        logits=round(rows * size.vocabulary * (itemsize + 4) + work.n_validation * size.vocabulary * 4),
        activations=places * (4 * drawn * work.sets + 8 * most),
    )
