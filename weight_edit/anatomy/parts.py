"""The parts of a decoder as seen from its residual stream: plain data, no model.

Module and parameter names are relative to the causal language model that transformers builds
(`model.get_submodule(name)`, `model.state_dict()[name]`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A norm between a writer and the stream.

    Attributes:
        module: its name; empty where it has no gains.
        kind: "rms" (gain * x / rms(x)), "layer" (gain * (x - mean) / std + bias), or "gain" (gain * x).
        gain_offset: the gain is `gain_offset + weight`: 0, or 1 for families such as Gemma.
        weight: name of its weight; None where it has no gains.
        bias: name of its bias, or None.
        inner: another norm in front of this one, nearer to the writer (Gemma 4's experts have two); None as a rule.
    """

    module: str
    kind: str
    gain_offset: float
    weight: str | None
    bias: str | None
    inner: "Norm | None" = None


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A parameter whose vectors are added to the residual stream, usually a linear weight.

    Attributes:
        module: the module whose output is made of these vectors, e.g. `model.layers.0.self_attn.o_proj`; of fused
            experts, the module that holds all of them. Empty where no module gives just that: a vector that is added
            elsewhere; a hook then acts on the parameter.
        weight: name of the parameter.
        axis: of the weight along which the vectors lie: 0 in `nn.Linear`, 1 in `Conv1D`, embeddings and many stacks
            of experts (experts, d_model, width), 2 in others.
        bias: name of its bias, or None.
        bias_axis: of the bias along which the vectors lie: 0, or 1 in a stack of experts.
        role: "embedding", "position" (any other embedding), "attention" (whatever mixes tokens), "mlp", "input"
            (another linear map in front of the blocks), or "projector" (what brings images or sounds in).
        layer: the block's number; None in front of the blocks.
        norm: the norm between the vectors and the stream, or None.
        scale: the constant that they are multiplied with before they are added.
    """

    module: str
    weight: str
    axis: int
    bias: str | None
    bias_axis: int
    role: str
    layer: int | None
    norm: Norm | None
    scale: float


@dataclass(frozen=True)
class Reader:
    """Linear maps that read the stream at one point, and the norm before them.

    Attributes:
        norm: name of the norm, or None when the stream is read as it is.
        modules: names of the linear maps, routers and experts.
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
        mid: the first module whose *input* is the stream between the block's additions (`resid_mid`); None for a
            parallel block, which has no such point.
    """

    module: str
    layer: int
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    mid: str | None


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Every writer to and reader from the residual stream of one architecture.

    Attributes:
        architecture: the class, e.g. "LlamaForCausalLM".
        model_type: e.g. "llama".
        d_model: width of the stream.
        embeddings: what the stream starts from.
        blocks: in order.
        final_norm: the norm that reads the last block's output; None where no module does.
        unembedding: name of the output head.
        embedding_weight, unembedding_weight: names of their weights.
        tied: whether the two are one tensor.
        also_tied: other parameters that are one with another only while config.json ties the embeddings.
        text_levels: paths of keys in config.json to the configs that a reader may look at for settings of the text
            model: from the whole, (), down to its own, such as ("text_config",).
        shapes: the shape of every parameter by name.
        media: "images", "sounds": what passes with and without were followed.
        unknown: what may bring something into the stream and could not be followed, such as sounds: sentences.
    """

    architecture: str
    model_type: str
    d_model: int
    embeddings: tuple[Writer, ...]
    blocks: tuple[Block, ...]
    final_norm: str | None
    unembedding: str
    embedding_weight: str
    unembedding_weight: str
    tied: bool
    also_tied: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    media: tuple[str, ...]
    unknown: tuple[str, ...]
    text_levels: tuple[tuple[str, ...], ...] = ((),)

    def __repr__(self) -> str:
        blocks = f"{self.n_layers} blocks, d_model {self.d_model}"
        return f"Anatomy({self.architecture}, {blocks}, {len(self.writers)} writers, {len(self.readers)} readers)"

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
