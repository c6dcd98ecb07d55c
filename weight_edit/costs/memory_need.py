"""The memory at the peak of a find, in parts that are there together."""

from dataclasses import asdict, dataclass
from typing import Any

from weight_edit.costs.model_size import ModelSize
from weight_edit.costs.workload import Workload
from weight_edit.runtime.memory import MOST_SEQUENCES, MOST_TOKENS
from weight_edit.runtime.offload.offload import STACK

PROGRAM = 500_000_000
"""Bytes that Python, torch and transformers take before any model."""

_WIDEST, _STREAMS = 3, 6
"""Vectors that a block holds of a token at once: as wide as its widest map, and as wide as the stream."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes at the peak of a find, of one process.

    Attributes:
        program: Python and its libraries.
        weights: all of the model's; offloaded, its largest block, of a large mixture's experts one at a time, and on an
            accelerator the next block beside it.
        embeddings: rows in use of a model that is offloaded.
        hidden_states: the stream and what a block makes of it; offloaded, the stream of all prompts and edits of a
            request, for the batches wait for one another.
        keys_and_values: of the prompts' common prefix under each edit of a batch, or of the answers in a batch.
        logits: of a batch, and the log-probabilities that candidates are compared with, float64.
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

    @property
    def on_device(self) -> int:
        """What of it lies in an accelerator's own memory, where there is one."""
        return self.total - self.program - self.activations

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "total": self.total, "on_device": self.on_device}


def memory_need(size: ModelSize, work: Workload, device: str = "cpu") -> MemoryNeed:
    """The memory that a find with these settings takes where none is short: a batch is made smaller where it is.

    Args:
        device: where the model is; an accelerator's batches are larger than a processor's.
    """
    itemsize, prefix = size.itemsize, work.prefix
    longest = max(work.target.mean, work.baseline.mean)
    most = MOST_TOKENS["cpu" if device == "cpu" else "other"] / longest
    most = max(1.0, min(MOST_SEQUENCES, most) if device == "cpu" else most)
    rows = min(most, work.n_validation * work.candidates[1])
    waiting = work.candidates[1] * (prefix + work.n_validation * (longest - prefix)) if work.offload else 0
    inside = rows * longest * (_WIDEST * size.widest + _STREAMS * size.d_model)
    answered = work.answers * work.sets if work.offload else min(MOST_SEQUENCES, work.answers * work.sets)
    kept = size.counts.kept + size.counts.kept_per_token * (longest + work.max_new_tokens)
    drawn = work.n_train + work.n_validation
    used = min(size.embedding_bytes, drawn * work.sets * longest * size.row_bytes)
    places = work.positions * size.layers * size.d_model
    copied = work.n_train * work.targets
    block = size.unit_bytes if size.block_bytes > STACK else size.block_bytes
    return MemoryNeed(
        program=PROGRAM,
        weights=(1 if device == "cpu" else 2) * block if work.offload else size.parameter_bytes,
        embeddings=round(used) if work.offload else 0,
        hidden_states=round((inside + waiting * size.d_model) * itemsize),
        keys_and_values=round(answered * kept * itemsize),
        logits=round(rows * size.vocabulary * (itemsize + 4) + work.n_validation * size.vocabulary * 8),
        activations=places * (4 * drawn * work.sets + 8 * copied),
    )
