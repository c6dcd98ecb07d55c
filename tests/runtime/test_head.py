"""A head gives the logits of hidden states a part of the vocabulary at a time, whatever the model does with them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.families import save_family
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.runtime import head as heads
from weight_edit.runtime.head import Head
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.passes import forward_backbone, run_model
from weight_edit.runtime.spool import Spool

SEQUENCE = [3, 1, 4, 1, 5, 9, 2, 6]

# Caps, scales, biases, a head that calls past its backbone, one without a name for it, experts, images.
APART = ("llama", "gemma2", "gpt2", "cohere", "phi", "opt", "llama4_text", "gpt_oss", "llava", "mamba")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies are divided, as those of large models are."""
    monkeypatch.setattr(heads, "SLICE", 64 * 10)


def hidden_and_logits(model: Model) -> tuple[Tensor, Tensor]:
    """What the backbone returns, and the model's own logits, each of all tokens."""
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([SEQUENCE], device=model.device), use_cache=False).logits[0]
    ((_, hidden),) = run_model(model, [SEQUENCE], lambda batch: forward_backbone(model, batch), batch_size=1)
    return hidden[0], logits


def in_parts(head: Head, hidden: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The logits of all parts."""
    parts = [head.logits(hidden, head.weights(number, dtype)) for number in range(len(head.parts))]
    return torch.cat(parts, dim=-1)


@pytest.mark.parametrize("family", APART)
def test_parts_together_are_the_models_logits(family: str, small_parts: None) -> None:
    model = Model.from_parts(narrow_model(sample(family)), None)
    hidden, logits = hidden_and_logits(model)
    with Spool() as spool:
        head = Head(model, "head", spool)
        assert len(head.parts) > 2
        assert head.by_parts(hidden[-2:], torch.float32)
        assert float((in_parts(head, hidden) - logits).abs().max()) < 1e-5 * max(1.0, float(logits.abs().max()))


def test_a_head_that_looks_at_tokens_by_number_is_not_divided(small_parts: None) -> None:
    """Chameleon takes the tokens of images out of its logits."""
    model = Model.from_parts(narrow_model(sample("chameleon")), None)
    hidden, logits = hidden_and_logits(model)
    with Spool() as spool:
        head = Head(model, "head", spool)
        assert not head.by_parts(hidden[-2:], torch.float32)
        assert torch.allclose(head.logits(hidden, head.weights(None, torch.float32)), logits, atol=1e-5)


def test_hooks_and_changes_of_a_tied_unembedding_take_part(tmp_path: Path, small_parts: None) -> None:
    folder = save_family("llama-tied", tmp_path / "base")
    word_tokenizer().save_pretrained(folder)
    row = torch.linalg.qr(torch.randn(64, 1, generator=torch.Generator().manual_seed(1)))[0].numpy()
    change = TensorEdit(LowRankMap(row, row), 1)
    hook = Hook("lm_head", "input", LowRankMap(row, row).apply)
    hidden, plain = hidden_and_logits(load(folder))
    with Spool() as spool:
        model = load(folder)
        wanted = (hidden - (hidden @ torch.from_numpy(row).float()) @ torch.from_numpy(row).float().T) @ (
            model.parameter("lm_head.weight").T
        )
        head = Head(model, "head", spool)
        by_hook = torch.cat(
            [head.logits(hidden, head.weights(n, torch.float32), [hook]) for n in range(len(head.parts))], dim=-1
        )
        changes = {"model.embed_tokens.weight": change}
        by_change = torch.cat(
            [head.logits(hidden, head.weights(n, torch.float32, changes)) for n in range(len(head.parts))], dim=-1
        )
    assert float((wanted - plain).abs().max()) > 0.05
    assert float((by_hook - wanted).abs().max()) < 1e-4
    assert float((by_change - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("offload", [False, True])
def test_one_part_is_in_memory_in_the_dtype_asked_for(tmp_path: Path, small_parts: None, offload: bool) -> None:
    folder = save_family("llama-tied", tmp_path / "base", dtype=torch.bfloat16)
    word_tokenizer().save_pretrained(folder)
    hidden, _ = hidden_and_logits(load(folder))
    weight = load(folder).parameter("lm_head.weight").float()
    model = load(folder, offload=offload)
    with Spool() as spool:
        head = Head(model, "head", spool)
        (part,) = head.weights(1, torch.float32)
        assert torch.equal(part, weight[head.parts[1]])
        assert not any(p.device.type != "meta" for p in model.backbone.parameters()), "nothing else stays"
        assert float((in_parts(head, hidden.float()) - hidden.float() @ weight.T).abs().max()) < 1e-3
