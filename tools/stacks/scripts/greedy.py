"""Greedy decoding of what is called as a model of transformers is, in any library."""

from typing import Any

import torch
from exchange import two_best


def with_cache(model: Any, prompt: list, new_tokens: int) -> dict:
    """The most probable tokens behind a prompt, past an end of text too, with the model's own cache."""
    ids, tokens, top, cache = torch.tensor([prompt]), [], [], None
    for step in range(new_tokens):
        mask = torch.ones(1, len(prompt) + step, dtype=torch.long)
        places = torch.arange(mask.shape[1] - ids.shape[1], mask.shape[1])[None]
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
        best = two_best(out.logits[0, -1].float().numpy())
        tokens.append(best[0][0])
        top.append(best)
        ids, cache = torch.tensor([[best[0][0]]]), out.past_key_values
    return {"tokens": tokens, "top": top}
