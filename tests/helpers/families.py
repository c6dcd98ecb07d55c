"""Small random models of the supported families, made on the spot: random norm gains and biases, float32."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from weight_edit.anatomy.narrow.small import narrow_config, narrow_model
from weight_edit.inspection.catalogue.samples import sample

TEXT_ONLY = {"gemma3": "gemma3_text"}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2")
KINDS = ("mixtral", "gpt_oss", "deepseek_v3", "phi", "olmo2", "bloom", "mamba", "gemma3-images")
"""One of each other kind: experts of several layouts, parallel blocks with biases, norms behind writers and behind the
embedding, no attention, images."""
TIED = ("gemma2", "gemma3", "gpt2", "llama-tied", "qwen2-tied")
LAYERS = 3


def family_config(family: str) -> Any:
    """A narrow configuration with a few blocks; "-tied" ties a family's embeddings that is untied by default."""
    name, _, tied = family.partition("-")
    if family in KINDS:
        return sample(name)
    kind = TEXT_ONLY.get(name, name)
    options: dict[str, Any] = {}
    if name in ("gemma2", "gemma3"):
        # Both kinds of attention, with a window shorter than the test prompts.
        options = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 4}
    tie = bool(tied) or name in ("gemma2", "gemma3", "gpt2")
    return narrow_config(AutoConfig.for_model(kind, num_hidden_layers=LAYERS, tie_word_embeddings=tie, **options))


def save_family(family: str, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A random model of a family, saved as transformers saves it."""
    model = narrow_model(family_config(family), seed=seed).to(dtype)
    model.save_pretrained(folder, **options)
    return folder
