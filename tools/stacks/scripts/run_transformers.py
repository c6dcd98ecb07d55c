"""Greedy tokens by transformers, and by PEFT where a model has an adapter; merged if the request says so."""

import torch
from exchange import serve
from greedy import with_cache
from transformers import AutoModelForCausalLM


def run(model: dict, asked: dict) -> list:
    loaded = AutoModelForCausalLM.from_pretrained(model["folder"], dtype=torch.float32)
    if model["adapter"]:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, model["adapter"])
        loaded = loaded.merge_and_unload() if asked["merged"] else loaded
    loaded.eval()
    return [with_cache(loaded, prompt, asked["new_tokens"]) for prompt in asked["prompts"]]


torch.set_num_threads(1)
serve(run)
