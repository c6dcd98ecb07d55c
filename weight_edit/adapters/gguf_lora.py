"""An edit of a GGUF file's model as llama.cpp's own adapter: `*.lora_a` and `*.lora_b` of each tensor.

llama.cpp adds `scale * alpha / rank * B (A x)` to what a tensor's matrix gives, and to an embedding's row B times a row
of A. The factors are made of the file's own numbers, so that the adapter is exact on that file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from weight_edit.adapters.truncation import Truncation, factors_of_rows, total
from weight_edit.checkpoint.quantized.values import slabs_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UnsupportedError
from weight_edit.plan.plan import EditPlan
from weight_edit.utils.progress import bar

EMBEDDING, POSITIONS = "token_embd.weight", "position_embd.weight"
UNAPPLIED: Mapping[str, tuple[str, ...]] = {
    "kimi-linear": ("attn_output", "ffn_down", "ffn_down_shexp"),
    "kimi-k3": ("attn_output", "ffn_down", "ffn_down_shexp"),
    "bailingmoe3": ("attn_output", "token_embd"),
    "granite-switch": ("token_embd",),
    "glm5-next": ("attn_output",),
    "deepseek4": ("attn_output_a",),
}
"""Architecture -> the writers whose adapters llama.cpp loads and does not use (src/models, commit 0c1e57098)."""

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GgufFactors:
    """The factors of one tensor as llama.cpp multiplies with them.

    Attributes:
        name: of the tensor.
        a: (rank, in), (experts, rank, in), or (vocabulary, rank) of an embedding.
        b: (out, rank), or (experts, out, rank).
        loss: what a smaller rank than the edit's loses; None for nothing.
    """

    name: str
    a: Floats32
    b: Floats32
    loss: Truncation | None

    @property
    def rank(self) -> int:
        """The rank, of each matrix."""
        return int(self.b.shape[-1])


def check_carried(changes: Mapping[str, TensorEdit], plan: EditPlan, checkpoint: Checkpoint) -> None:
    """Refuse what llama.cpp's adapters have no place for, or what it would leave out in silence.

    Args:
        changes: tensor of the file -> its edit.

    Raises:
        UnsupportedError: biases, position embeddings, a tied token embedding, or an architecture that does not apply
            adapters to what writes to the stream.
    """
    architecture = "" if checkpoint.gguf is None else checkpoint.gguf.architecture
    for name in changes:
        if len(checkpoint.info(name).shape) < 2 or name.endswith(".bias"):
            raise UnsupportedError(
                f"'{name}' is a bias or a norm, for which llama.cpp's adapters have no place; edit the file itself "
                "with bake"
            )
        if name == POSITIONS:
            raise UnsupportedError(
                f"llama.cpp applies no adapter to position embeddings ('{name}'), which write to the stream too; edit "
                "the file itself with bake"
            )
        if name == EMBEDDING and plan.anatomy.tied:
            raise UnsupportedError(
                "the unembedding of this GGUF file is tied to the embedding, and llama.cpp stops where an adapter has "
                f"'{name}' of such a model; `embeddings='skip'` leaves the embedding as it is, or edit the file itself "
                "with bake",
                option="embeddings",
            )
        if name.split(".")[-2] in UNAPPLIED.get(architecture, ()):
            raise UnsupportedError(
                f"llama.cpp loads an adapter of '{name}' and does not use it in the architecture {architecture}; edit "
                "the file itself with bake"
            )


def gguf_factors(changes: Mapping[str, TensorEdit], checkpoint: Checkpoint, rank: int | None) -> list[GgufFactors]:
    """The factors of every tensor that changes.

    Args:
        changes: tensor of the file -> its edit.
        rank: at most; None for exact factors.
    """
    found = []
    with bar("adapter", len(changes)) as progress:
        for name, edit in changes.items():
            found.append(_factors(name, edit, checkpoint, rank))
            progress.advance()
    return found


def _factors(name: str, edit: TensorEdit, checkpoint: Checkpoint, rank: int | None) -> GgufFactors:
    """The factors of one tensor, whose matrices are read one at a time."""
    stacked = len(checkpoint.info(name).shape) == 3
    axis = edit.axis - stacked
    pairs = [
        factors_of_rows(edit, torch.from_numpy(matrix).movedim(axis, -1), rank) for matrix in slabs_of(checkpoint, name)
    ]
    # ggml multiplies rows: those of a matrix are its outputs, those of the embedding are looked up.
    outputs_first = axis == 0
    made = [(others, stream) if outputs_first else (stream.T, others.T) for stream, others, _ in pairs]
    if name == EMBEDDING:
        made = [(others.T, stream) for stream, others, _ in pairs]
    a, b = (np.stack([np.ascontiguousarray(each[side].numpy()) for each in made]) for side in (0, 1))
    losses = [loss for _, _, loss in pairs if loss is not None]
    return GgufFactors(name, a if stacked else a[0], b if stacked else b[0], total(losses) if losses else None)
