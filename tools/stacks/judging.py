"""A stack's replies about a case judged: what differs, what its precision excuses, and what the edit changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stacks.comparison import Agreement, Judgement, agreement, logits
from stacks.environment import Stack
from stacks.precision import noise
from stacks.replies import Prompts, Reply
from stacks.suspects import reference

GGUF_PRECISION = "8 bits"
"""What llama.cpp multiplies quantised weights with."""


def compared(model: Any, prompts: Prompts, said: Sequence[Reply]) -> Agreement:
    """Replies held to a model of transformers, whose generation config says where texts end."""
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    return agreement(model, prompts.ids, said, ends=ends, new_tokens=prompts.new_tokens)


def judged(found: Agreement, stack: Stack, model: Path, prompts: Prompts, said: Sequence[Reply]) -> Judgement:
    """What a comparison comes to; the precision's noise is measured where something differs.

    Args:
        found: the replies, compared.
        model: the folder or GGUF file that they are about.
    """
    if not found.differences:
        return found.judged(0.0)
    precision = GGUF_PRECISION if model.is_file() else stack.precision
    return found.judged(noise(lambda: reference(model), prompts.ids, said, precision=precision))


def changed(base: Path, edited: Path, prompts: Prompts, said: Sequence[Reply], *, noise: float = 0.0) -> int:
    """At how many places of the replies the base's answer is another than the edit's, by transformers alone.

    A stack that served the base for the edit would differ at such places.

    Args:
        noise: how much more probable, in nats, the base has to find its own answer.
    """
    before, after = (reference(model) for model in (base, edited))
    count = 0
    for prompt, reply in zip(prompts.ids, said, strict=True):
        rows, best = (logits(model, prompt, reply.tokens)[:-1] for model in (before, after))
        own = rows.gather(-1, best.argmax(-1, keepdim=True))[..., 0]
        count += int((rows.max(-1).values - own > noise).sum())
    return count
