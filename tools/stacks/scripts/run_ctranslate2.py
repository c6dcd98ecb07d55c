"""Greedy tokens by CTranslate2, of its own converter's file in float32."""

from pathlib import Path

import ctranslate2
import numpy as np
from exchange import serve
from transformers import AutoTokenizer


def run(model: dict, asked: dict) -> list:
    out = Path(asked["scratch"]) / "ctranslate2"
    ctranslate2.converters.TransformersConverter(model["folder"]).convert(str(out), quantization="float32")
    generator = ctranslate2.Generator(str(out), device="cpu", compute_type="float32", intra_threads=1)
    names = AutoTokenizer.from_pretrained(model["folder"]).convert_ids_to_tokens
    return [_reply(generator, names, prompt, asked["new_tokens"]) for prompt in asked["prompts"]]


def _reply(generator, names, prompt: list, new_tokens: int) -> dict:
    steps = generator.generate_tokens(names(prompt), max_length=new_tokens, sampling_topk=1, end_token=[])
    tokens = [step.token_id for step in steps]
    # What is generated says no probability of a second token; the whole text read at once does.
    scores = np.array(generator.forward_batch([names([*prompt, *tokens])], return_log_probs=True))[0]
    top = [[[int(token), float(row[token])] for token in np.argsort(-row)[:2]] for row in scores[len(prompt) - 1 : -1]]
    return {"tokens": tokens, "top": top}


serve(run)
