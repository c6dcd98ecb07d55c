"""Greedy tokens by ONNX Runtime, of the file that optimum exports in float32."""

import onnxruntime
from exchange import serve
from greedy import with_cache
from optimum.onnxruntime import ORTModelForCausalLM


def run(model: dict, asked: dict) -> list:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = ORTModelForCausalLM.from_pretrained(model["folder"], export=True, session_options=options, dtype="float32")
    return [with_cache(loaded, prompt, asked["new_tokens"]) for prompt in asked["prompts"]]


serve(run)
