"""Greedy tokens by mlx-lm on the processor, computed in float32."""

from pathlib import Path

import mlx.core as mx
from exchange import serve, two_best
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model


def run(model: dict, asked: dict) -> list:
    loaded, _ = load_model(Path(model["folder"]))
    loaded.set_dtype(mx.float32)
    replies = []
    for prompt in asked["prompts"]:
        cache, ids, tokens, top = make_prompt_cache(loaded), mx.array([prompt]), [], []
        for _ in range(asked["new_tokens"]):
            best = two_best(loaded(ids, cache=cache)[0, -1])
            tokens.append(best[0][0])
            top.append(best)
            ids = mx.array([[best[0][0]]])
        replies.append({"tokens": tokens, "top": top})
    return replies


mx.set_default_device(mx.cpu)
serve(run)
