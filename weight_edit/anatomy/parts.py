"""What a decoder consists of, seen from its residual stream: plain data, no model.

Module and parameter names are relative to the causal language model that transformers builds
(`model.get_submodule(name)`, `model.state_dict()[name]`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Norm:
    """A norm between a writer and the stream.

    Attributes:
        module: its name.
        kind: "rms" (gain * x / rms(x)) or "layer" (gain * (x - mean) / std + bias).
        gain_offset: the gain is `gain_offset + weight`: 0, or 1 for families such as Gemma.
        weight: name of its weight.
        bias: name of its bias, or None.
    """

    module: str
    kind: str
    gain_offset: float
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Writer:
    """A linear map whose output is added to the residual stream.

    Attributes:
        module: its name, e.g. `model.layers.0.self_attn.o_proj`.
        weight: name of its weight.
        bias: name of its bias, or None.
        axis: the axis of the weight along which outputs lie: 0 in `nn.Linear`, 1 in `Conv1D` and embeddings.
        role: "embedding", "position" (learned position embeddings), "attention" or "mlp".
        layer: the block's number; None for embeddings.
        norm: the norm between its output and the stream, or None.
        scale: the constant that the output is multiplied with before it is added.
    """

    module: str
    weight: str
    bias: str | None
    axis: int
    role: str
    layer: int | None
    norm: Norm | None
    scale: float


@dataclass(frozen=True)
class Reader:
    """Linear maps that read the residual stream at one point, and the norm that they read it through.

    Attributes:
        norm: name of the norm, or None when the stream is read as it is.
        modules: names of the linear maps.
        layer: the block's number; None for the unembedding.
    """

    norm: str | None
    modules: tuple[str, ...]
    layer: int | None


@dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
        module: its name, e.g. `model.layers.0`.
        layer: its number.
        writers: in the order in which they are added.
        readers: in the order in which they read.
        mid: the module whose *input* is the stream between the block's two additions (`resid_mid`); None for a
            parallel block, which has no such point.
    """

    module: str
    layer: int
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    mid: str | None


@dataclass(frozen=True)
class Anatomy:
    """Every writer to and reader from the residual stream of one architecture.

    Attributes:
        architecture: the class, e.g. "LlamaForCausalLM".
        model_type: e.g. "llama".
        d_model: width of the stream.
        embeddings: what the stream starts from.
        blocks: in order.
        final_norm: the norm before the unembedding.
        unembedding: name of the output head.
        embedding_weight, unembedding_weight: names of their weights.
        tied: whether the two are one tensor.
        shapes: the shape of every parameter by name.
        base_prefix: what transformers drops from or adds to names when a checkpoint was saved from the backbone.
    """

    architecture: str
    model_type: str
    d_model: int
    embeddings: tuple[Writer, ...]
    blocks: tuple[Block, ...]
    final_norm: str
    unembedding: str
    embedding_weight: str
    unembedding_weight: str
    tied: bool
    shapes: dict[str, tuple[int, ...]]
    base_prefix: str

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    @property
    def writers(self) -> tuple[Writer, ...]:
        """All writers: the embeddings, then those of the blocks in order."""
        return self.embeddings + tuple(writer for block in self.blocks for writer in block.writers)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """All readers: those of the blocks in order, then the unembedding."""
        return (
            *(reader for block in self.blocks for reader in block.readers),
            Reader(norm=self.final_norm, modules=(self.unembedding,), layer=None),
        )
