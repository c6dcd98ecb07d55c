"""The size of a model: its parameters by block, its bytes, and the arithmetic of a token."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.derive import anatomy_with_model
from weight_edit.anatomy.parts import Anatomy
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES
from weight_edit.costs.counting import PassCounts, pass_counts
from weight_edit.errors import UnsupportedError

_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_top_k", "top_k")
"""Names that configs have for the number of experts that a token goes through, for families that cannot be run."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What a model holds, and what a token costs in it.

    Attributes:
        architecture: the class.
        layers: its blocks.
        d_model: width of the stream.
        widest: outputs of the widest map in a block, for a token: what a pass holds of it at the most.
        vocabulary: logits.
        dtype: that it computes in.
        parameters: all of them, tied ones once.
        parameter_bytes: of these, in `dtype`.
        block_bytes: of the largest block, in `dtype`.
        expert_bytes: of one expert of the largest block, in `dtype`; None where there are none.
        unit_bytes: of the largest part of a block that has to be in memory at once where experts come one by one.
        blocks_bytes: of all blocks together, in `dtype`.
        row_bytes: of one token's embedding, in `dtype`.
        embedding_bytes: of the token embeddings, in `dtype`.
        unembedding_bytes: of the unembedding, in `dtype`, also where it is the embedding.
        tied: whether the two are one.
        written: parameters of the weights that an edit of the whole stream changes.
        checkpoint_bytes: of the tensors as they are stored.
        stored: whether that is from headers of the shards, not from the config alone.
        counts: arithmetic of a pass.
        counted: whether that was counted; False: an estimate from parameters, heads and experts in the config.
    """

    architecture: str
    layers: int
    d_model: int
    widest: int
    vocabulary: int
    dtype: str
    parameters: int
    parameter_bytes: int
    block_bytes: int
    expert_bytes: int | None
    unit_bytes: int
    blocks_bytes: int
    row_bytes: int
    embedding_bytes: int
    unembedding_bytes: int
    tied: bool
    written: int
    checkpoint_bytes: int
    stored: bool
    counts: PassCounts
    counted: bool

    @property
    def itemsize(self) -> int:
        """Bytes of a number in `dtype`."""
        return torch_dtype(self.dtype).itemsize

    @property
    def per_logits(self) -> float:
        """FLOPs of the logits of one token."""
        return 2.0 * self.d_model * self.vocabulary

    @property
    def active(self) -> int:
        """Parameters that a token is multiplied with on its way to the logits: half of its FLOPs without attention."""
        return round((self.counts.per_token + self.per_logits) / 2)

    @property
    def stored_share(self) -> float:
        """Bytes on disk for each byte in `dtype`."""
        return self.checkpoint_bytes / self.parameter_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "active_parameters": self.active}


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name such as "bfloat16"."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def model_size(
    config: Any,
    checkpoint: Checkpoint | None,
    *,
    dtype: str = "auto",
    length: int = 64,
    trust_remote_code: bool = False,
) -> ModelSize:
    """The size of a config's model; no weights are read.

    Args:
        checkpoint: its headers, where there are any.
        dtype: that it is to be loaded in; "auto" is what the checkpoint stores, or what the config says.
        length: of the sequences whose arithmetic is counted.

    Raises:
        UnsupportedError: the architecture is not understood.
        UsageError: a config that is none of a language model.
    """
    anatomy, real = anatomy_with_model(config, trust_remote_code=trust_remote_code)
    chosen = _dtype(config, checkpoint) if dtype == "auto" else dtype
    itemsize = torch_dtype(chosen).itemsize
    counted = True
    try:
        counts = pass_counts(config, anatomy, length, trust_remote_code=trust_remote_code)
    except UnsupportedError:
        counts, counted = _estimated(config, anatomy, real), False
    blocks = [real.get_submodule(block.module) for block in anatomy.blocks]
    sizes = [numbers(block.parameters()) for block in blocks]
    experts = [_experts(block) for block in blocks]
    largest = max(range(len(blocks)), key=sizes.__getitem__)
    units = [
        size - sum(each.numbers for each in found) + max((each.one for each in found), default=0)
        for size, found in zip(sizes, experts, strict=True)
    ]
    head = anatomy.shapes[anatomy.unembedding_weight]
    embedding = anatomy.shapes[anatomy.embedding_weight]
    held = numbers(real.state_dict(keep_vars=True).values())
    stored = held * torch_dtype(_dtype(config, None)).itemsize
    one = max((each.one for each in experts[largest]), default=None)
    return ModelSize(
        architecture=anatomy.architecture,
        layers=anatomy.n_layers,
        d_model=anatomy.d_model,
        widest=max(max(parameter.shape[-2:]) for parameter in blocks[largest].parameters() if parameter.ndim > 1),
        vocabulary=head[0],
        dtype=chosen,
        parameters=numbers(real.parameters()),
        parameter_bytes=held * itemsize,
        block_bytes=sizes[largest] * itemsize,
        expert_bytes=None if one is None else one * itemsize,
        unit_bytes=max(units) * itemsize,
        blocks_bytes=sum(sizes) * itemsize,
        row_bytes=embedding[-1] * itemsize,
        embedding_bytes=_product(embedding) * itemsize,
        unembedding_bytes=_product(head) * itemsize,
        tied=anatomy.tied,
        written=sum(_product(anatomy.shapes[writer.weight]) for writer in anatomy.writers),
        checkpoint_bytes=stored if checkpoint is None else sum(each.size for each in checkpoint.tensors.values()),
        stored=checkpoint is not None,
        counts=counts,
        counted=counted,
    )


def numbers(tensors: Iterable[Tensor]) -> int:
    """How many numbers tensors hold, one that comes twice counted once."""
    return sum(tensor.numel() for tensor in {id(each): each for each in tensors}.values())


def _product(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _dtype(config: Any, checkpoint: Checkpoint | None) -> str:
    """The dtype of most bytes in a checkpoint that a model can compute in, else that of the config."""
    stored: Counter[str] = Counter()
    for each in () if checkpoint is None else checkpoint.tensors.values():
        found = TORCH_DTYPES.get(each.dtype)
        if found is not None and found.is_floating_point and found.itemsize > 1:
            stored[str(found)] += each.size
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or torch.float32
    quantised = getattr(config, "quantization_config", None) is not None
    name = stored.most_common(1)[0][0] if stored and not quantised else str(said)
    return name.removeprefix("torch.")


@dataclass(frozen=True)
class _Experts:
    """The experts of one module: how many numbers all of them hold, and one of them."""

    numbers: int
    one: int


def _experts(block: nn.Module) -> list[_Experts]:
    """The experts in a block: stacks of matrices in one parameter, or a list of modules alike."""
    found = []
    for module in block.modules():
        stacks = [each for each in module.parameters(recurse=False) if each.ndim == 3 and each.shape[0] > 1]
        if stacks and "Conv" not in type(module).__name__ and len({each.shape[0] for each in stacks}) == 1:
            held = numbers(stacks)
            found.append(_Experts(held, held // stacks[0].shape[0]))
        elif isinstance(module, nn.ModuleList) and len(module) > 1:
            shapes = [[tuple(each.shape) for each in child.parameters()] for child in module]
            if shapes[0] and all(shape == shapes[0] for shape in shapes):
                held = numbers(module.parameters())
                found.append(_Experts(held, held // len(module)))
    return found


def _estimated(config: Any, anatomy: Anatomy, model: nn.Module) -> PassCounts:
    """An estimate: every matrix of a block once for each token, of experts those that a token goes through."""
    text = config.get_text_config()
    chosen = next((int(getattr(text, name)) for name in _CHOSEN if isinstance(getattr(text, name, None), int)), None)
    tokens = []
    for block in anatomy.blocks:
        module = model.get_submodule(block.module)
        experts = _experts(module)
        inside = sum(each.numbers for each in experts)
        active = sum(each.numbers if chosen is None else min(each.numbers, each.one * chosen) for each in experts)
        tokens.append(2.0 * (numbers(each for each in module.parameters() if each.ndim > 1) - inside + active))
    heads = _number(text, "num_attention_heads", 1)
    width = _number(text, "head_dim", anatomy.d_model // heads)
    groups = _number(text, "num_key_value_heads", heads)
    return PassCounts(
        per_token=sum(tokens),
        per_pair=4.0 * heads * width * anatomy.n_layers,
        blocks=tuple(each / sum(tokens) for each in tokens),
        kept_per_token=2.0 * groups * width * anatomy.n_layers,
        kept=0.0,
    )


def _number(config: Any, name: str, otherwise: int) -> int:
    found = getattr(config, name, None)
    return found if isinstance(found, int) and found > 0 else otherwise
