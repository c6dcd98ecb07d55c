"""Greedy tokens by OpenVINO on the processor, of the file that optimum exports in float32."""

from exchange import serve
from greedy import with_cache
from optimum.intel import OVModelForCausalLM

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "KV_CACHE_PRECISION": "f32"}


def run(model: dict, asked: dict) -> list:
    loaded = OVModelForCausalLM.from_pretrained(model["folder"], export=True, load_in_8bit=False, ov_config=SETTINGS)
    replies = []
    for prompt in asked["prompts"]:
        loaded.request = None
        loaded.compile()
        replies.append(with_cache(loaded, prompt, asked["new_tokens"]))
    return replies


serve(run)
