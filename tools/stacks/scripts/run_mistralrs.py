"""Greedy tokens by mistral.rs on the processor, computed in float32; it takes texts, and reads the tokenizer itself."""

import os
from pathlib import Path

from exchange import serve
from mistralrs import ChatCompletionRequest, ModelDType, Runner, Which


def run(model: dict, asked: dict) -> list:
    # The text as it stands, without marks of turns.
    template = Path(asked["scratch"]) / "plain.jinja"
    template.write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    runner = Runner(
        which=Which.Plain(model_id=model["folder"], dtype=ModelDType.F32),
        jinja_explicit=str(template),
        no_paged_attn=True,
        prefix_cache_n=0,
    )
    return [_reply(runner, text, asked["new_tokens"]) for text in asked["texts"]]


def _reply(runner, text: str, new_tokens: int) -> dict:
    question = ChatCompletionRequest(
        model="default",
        messages=[{"role": "user", "content": text}],
        max_tokens=new_tokens,
        temperature=0.0,
        top_k=1,
        logprobs=True,
        top_logprobs=2,
        ignore_eos=True,
    )
    steps = runner.send_chat_completion_request(question).choices[0].logprobs.content
    return {
        # A step names its token by its text, the two most probable ones by their numbers.
        "tokens": [step.top_logprobs[0].token for step in steps],
        "top": [[[each.token, each.logprob] for each in step.top_logprobs] for step in steps],
        "read": list(runner.tokenize_text(text, False, None)),
    }


# Keys and values are kept in float16 otherwise.
os.environ["MISTRALRS_CPU_KV_F32"] = "1"
serve(run)
