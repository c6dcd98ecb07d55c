"""Small random checkpoints, loaded in memory and left on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from tests.helpers.families import KINDS, family_config
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.offload.offload import Offload

BATCHES = ((3, 11), (2, 7), (1, 19))
"""Rows and tokens of the batches that take turns."""


@dataclass(frozen=True)
class Pair:
    """A checkpoint's model in memory and on disk."""

    folder: Path
    memory: Model
    disk: Model

    @property
    def offload(self) -> Offload:
        """What reads the model on disk."""
        assert self.disk.offload is not None
        return self.disk.offload

    @property
    def sequences(self) -> list[list[int]]:
        """Token ids of prompts of several lengths."""
        generator = torch.Generator().manual_seed(5)
        return [torch.randint(3, 40, (3 + 5 * (n % 4),), generator=generator).tolist() for n in range(11)]

    def batches(self) -> list[Tensor]:
        """Token ids of batches of several widths."""
        generator = torch.Generator().manual_seed(5)
        return [torch.randint(3, 40, shape, generator=generator) for shape in BATCHES]

    def stored(self, *, without: str = " ") -> int:
        """The bytes of all tensors in the checkpoint, but for those with `without` in their names."""
        shards = self.offload._shards
        return sum(shards.size(name) for name in shards.names if without not in name)


def config_of(family: str) -> Any:
    """A narrow config of one of the package's sample families, or of any other model type."""
    if family in ("gemma2", "gemma3", "gpt2", "llama", "llama-tied", "qwen2", "qwen3") or family in KINDS:
        return family_config(family)
    return sample(family)


def save(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A random checkpoint in several shards, with a tokenizer beside it."""
    narrow_model(config_of(family), seed=1).to(dtype).save_pretrained(folder, max_shard_size="100KB")
    word_tokenizer().save_pretrained(folder)
    return folder


def pair(folder: Path, **options: Any) -> Pair:
    """Both models of a folder."""
    return Pair(folder, load(folder, device="cpu", **options), load(folder, device="cpu", offload=True, **options))


def logits(model: Model, ids: Tensor) -> Tensor:
    """The logits of a batch without padding."""
    found: Tensor = model.model(input_ids=ids, use_cache=False).logits
    return found


def steps(model: Model, batches: list[Tensor]) -> list[Callable[[], Tensor]]:
    """One step for each batch, which gives its logits."""
    return [lambda ids=ids: logits(model, ids) for ids in batches]  # type: ignore[misc]


def width(folder: Path) -> int:
    """The stream's width."""
    return int(AutoConfig.from_pretrained(folder).get_text_config().hidden_size)
