"""The bytes of a model by its config alone against the headers of its checkpoint."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from tests.helpers.families import FAMILIES, KINDS, TIED, save_family
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.costs.model_size import model_size
from weight_edit.organism.embedded import folder


@pytest.mark.parametrize("family", sorted({*FAMILIES, *KINDS, *TIED}))
def test_bytes_are_those_of_the_headers(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path, dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    alone, with_headers = model_size(config, None), model_size(config, checkpoint)
    assert alone.checkpoint_bytes == with_headers.checkpoint_bytes == sum(t.size for t in checkpoint.tensors.values())
    assert (alone.dtype, alone.stored, with_headers.stored) == ("bfloat16", False, True)
    assert alone.parameter_bytes == alone.checkpoint_bytes
    assert model_size(config, checkpoint, dtype="float32").parameter_bytes == 2 * alone.parameter_bytes


def test_the_organism_is_as_large_as_its_file() -> None:
    path = folder("organism")
    size = model_size(AutoConfig.from_pretrained(path), Checkpoint.open(path))
    assert size.dtype == "float32"
    assert size.checkpoint_bytes == size.parameter_bytes == 4 * size.parameters
    assert size.blocks_bytes + size.embedding_bytes + size.unembedding_bytes < size.parameter_bytes
    assert size.unit_bytes == size.block_bytes == size.blocks_bytes // size.layers


def test_one_expert_of_a_mixture_at_a_time(tmp_path: Path) -> None:
    save_family("mixtral", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    size = model_size(config, None)
    assert size.expert_bytes == 3 * config.hidden_size * config.intermediate_size * size.itemsize
    assert size.unit_bytes == size.block_bytes - (config.num_local_experts - 1) * size.expert_bytes
