"""Small modules to be recorded, whose forward pass is any function."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.graph.graph import Graph
from weight_edit.anatomy.graph.recording import record

WIDTH = 6


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1000 * len(shape)))


class Toy(nn.Module):
    """A model that gives as logits what `run(model, **inputs)` says."""

    def __init__(self, run: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            # A bare tensor is a parameter.
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *, use_cache: bool, **given: Any) -> Any:
        assert not use_cache
        return SimpleNamespace(logits=self.run(self, **given))


def toy(run: Callable[..., Tensor], inputs: Mapping[str, Tensor], **parts: Any) -> tuple[Toy, Graph]:
    """A toy and the record of one pass."""
    model = Toy(run, **parts)
    return model, record(model, inputs)


class Block(nn.Module):
    """A pre-norm block: a part that mixes tokens, and one that does not."""

    def __init__(self, width: int = WIDTH, inner: int = 10, bias: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.mixer, self.mlp = Mixer(width, bias), Mlp(width, inner, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Mixer(nn.Module):
    """Attention to all tokens before."""

    def __init__(self, width: int = WIDTH, bias: bool = False) -> None:
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(width, width + 2), nn.Linear(width, width + 2), None)
        self.out = nn.Linear(width + 2, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.query(x).mT
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return self.out(scores.masked_fill(hidden, float("-inf")).softmax(-1) @ self.value(x))


class Mlp(nn.Module):
    """One hidden layer."""

    def __init__(self, width: int = WIDTH, inner: int = 10, bias: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.nn.functional.silu(self.up(x)))


class Decoder(nn.Module):
    """An embedding, a list of blocks, and an unembedding; all parameters random."""

    def __init__(self, blocks: list[nn.Module], width: int = WIDTH, vocabulary: int = 11) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))

    def stream(self, x: Tensor) -> Tensor:
        """What the blocks make of what the embedding gives."""
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.head(self.norm(self.stream(self.embed(input_ids)))))


IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
