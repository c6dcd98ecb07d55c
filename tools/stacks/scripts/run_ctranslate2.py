"""Greedy tokens by CTranslate2, of its own converter's file in float32."""

from pathlib import Path

import ctranslate2
import numpy as np
from exchange import serve, two_best
from transformers import AutoTokenizer


def run(model: dict, asked: dict) -> list:
    out = Path(asked["scratch"]) / "ctranslate2"
    ctranslate2.converters.TransformersConverter(model["folder"]).convert(str(out), quantization="float32")
    generator = ctranslate2.Generator(str(out), device="cpu", compute_type="float32", intra_threads=1)
    names = AutoTokenizer.from_pretrained(model["folder"]).convert_ids_to_tokens
    return [_reply(generator, names(prompt), asked["new_tokens"]) for prompt in asked["prompts"]]


def _reply(generator, prompt: list, new_tokens: int) -> dict:
    (found,) = generator.generate_batch(
        [prompt],
        max_length=new_tokens,
        sampling_topk=1,
        end_token=[],
        include_prompt_in_result=False,
        return_logits_vocab=True,
    )
    return {"tokens": found.sequences_ids[0], "top": [two_best(np.array(step)) for step in found.logits[0]]}


serve(run)
