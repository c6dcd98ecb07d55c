"""A representative third of the multimodal families, and small random models of them."""

import copy
from functools import cache
from typing import Any

import torch

from tests.helpers.committed_verdicts import there
from weight_edit.anatomy.narrow.classes import from_config
from weight_edit.anatomy.narrow.randomise import randomise
from weight_edit.inspection.catalogue.samples import sample_multimodal

IMAGES = (
    "apertus1p5",
    "aya_vision",
    "blip-2",
    "chameleon",
    "cohere2_vision",
    "deepseek_vl_hybrid",
    "emu3",
    "ernie4_5_vl_moe",
    "fuyu",
    "gemma3",
    "gemma4",
    "git",
    "glm4v_moe",
    "granite4_vision",
    "hy_v4_vl",
    "idefics",
    "idefics3",
    "inkling_mm_model",
    "internvl",
    "kimi_k25",
    "kosmos-2",
    "lfm2_vl",
    "llama4",
    "llava",
    "llava_next",
    "minicpmv4_6",
    "mistral3",
    "mllama",
    "molmo2",
    "muse_glimmer",
    "ovis2",
    "paddleocr_vl",
    "paligemma",
    "phi4_multimodal",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_omni_moe",
    "qwen3_vl_moe",
    "video_llama_3",
)
SOUNDS = ("granite_speech", "qwen2_audio", "voxtral", "voxtral_realtime")


@cache
def small_model(model_type: str) -> Any:
    """A narrow model of a few blocks with random parameters; not to be changed."""
    there(model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = copy.deepcopy(sample_multimodal(model_type))
        model = from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomise(model, 0)
    return model


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What a model says after each token."""
    with torch.inference_mode():
        given: torch.Tensor = model(**inputs, use_cache=False).logits
    return given
