"""Small random models of many families, by what their caches keep of a row."""

from tests.helpers.families import family_config
from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.runtime.loading import Model

FAMILIES = (
    # Plain, absolute positions, a window of 4 tokens, windows and softcaps, biases by distance, experts of two kinds,
    # latent keys, parallel blocks, layers that share their keys, several streams of images' positions.
    "llama", "gpt2", "gemma3", "gemma2", "bloom", "mpt", "opt", "mixtral", "gpt_oss", "deepseek_v3", "phi", "falcon",
    "gemma4_text", "qwen2_vl",
)  # fmt: skip
"""Keys and values of each token, which can be taken apart by rows."""

WHOLE = ("mamba", "jamba", "recurrent_gemma", "qwen3_next", "lfm2_moe", "deepseek_v4")
"""States, or keys of several tokens in one, which cannot."""


def small(family: str) -> Model:
    """A model whose answers are no single token over and over."""
    if family in ("llama", "gpt2", "gemma3"):
        return random_model(family)
    config = family_config(family) if family == "gemma2" else sample(family)
    return Model.from_parts(narrow_model(config, seed=1), word_tokenizer())
