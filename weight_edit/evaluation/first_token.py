"""The first token of answers: its log-probabilities, and a divergence where only the most probable are known."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.divergence import Divergence
from weight_edit.evaluation.endpoint.answer import TOP
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.probabilities import BaseLogprobs, FirstTokens
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs

OPENED = "the template opens answers with special tokens, and a server's first token is one"
"""Why a loaded model has no first tokens to hold against a server's."""

_LEAST = 1e-6
"""The least probability of all tokens that are not named: servers round what they send."""


def first_token_logprobs(
    model: Model, prompts: PromptSet, chat_format: ChatFormat | None = None, *, batch_size: int | None = None
) -> Tensor:
    """Log-probabilities of an answer's first text token, (n, vocabulary) float32, on the CPU.

    What `evaluate` takes as `base_logprobs`, so that several edits are compared with one run of the base.

    Raises:
        UsageError: as `next_token_logprobs`.
        VerificationError: they are not finite; with the place where the stream became so.
    """
    chat = chat_format or ChatFormat(model.tokenizer)
    sequences = [chat.encode_opened(prompt) for prompt in prompts.prompts]
    found = next_token_logprobs(model, sequences, batch_size=batch_size)
    check_logprobs(model, sequences, found, VerificationError)
    return found


def top_tokens(logprobs: Tensor, tokenizer: Any, count: int = 200) -> list[Mapping[str, float]]:
    """The texts of the most probable tokens with their log-probabilities, as a server names them.

    Args:
        logprobs: (n, vocabulary).
        count: of each row; tokens whose bytes are no text are left out.
    """
    best = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    texts = _texts(tokenizer, sorted({int(token) for row in best.indices.tolist() for token in row}))
    found: list[Mapping[str, float]] = []
    for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        named: dict[str, list[float]] = {}
        for token, value in zip(tokens, values, strict=True):
            if token in texts and value > -math.inf:
                named.setdefault(texts[token], []).append(value)
        found.append({text: float(torch.tensor(some).logsumexp(0)) for text, some in named.items()})
    return found


def _texts(tokenizer: Any, tokens: Sequence[int]) -> dict[int, str]:
    """What each token adds to a text, white space at its beginning included, which decoding it alone may drop."""
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    before = str(tokenizer.decode(anchor))
    texts = {token: str(tokenizer.decode([*anchor, token])) for token in tokens}
    return {
        token: text.removeprefix(before)
        for token, text in texts.items()
        if text.startswith(before) and "\ufffd" not in text
    }


def bounded_divergence(
    base: BaseLogprobs, own: FirstTokens | None, missing: str | None
) -> tuple[Divergence | None, str]:
    """The lower bound of a model's divergence from its base, and the note on it; or None, and why it is missing.

    Args:
        own: the model's most probable first tokens.
        missing: why it gives none.
    """
    if base.most_probable is None or own is None:
        return None, f"the divergence from the base is missing: {base.missing or missing}"
    return least_divergence(base.most_probable(), own), (
        f"the divergence from the base is a lower bound, from the {TOP} most probable tokens that a server names"
    )


def least_divergence(base: Sequence[Mapping[str, float]], edited: Sequence[Mapping[str, float]]) -> Divergence:
    """A lower bound of KL(base || edited) at the first token, from the most probable tokens of each.

    All tokens that are not in both lists are taken for one, which can only lower the divergence: with p and q over the
    shared tokens and what is left of each, `sum p log(p / q) + p_left log(p_left / q_left)`. Where one text stands for
    several tokens, the bound holds for texts.

    Args:
        base, edited: text to log-probability in nats, one mapping for each prompt.

    Raises:
        UsageError: no prompts, or of different number.
    """
    if len(base) != len(edited) or not base:
        raise UsageError(f"the divergence needs the same prompts, not {len(base)} and {len(edited)}")
    bounds = [_least(before, after) for before, after in zip(base, edited, strict=True)]
    same = sum(_best(before) == _best(after) for before, after in zip(base, edited, strict=True))
    mean = math.fsum(bounds) / len(bounds)
    return Divergence(
        mean, max(bounds), Rate(same, len(bounds)), torch.tensor(bounds, dtype=torch.float64), lower_bound=True
    )


def _least(base: Mapping[str, float], edited: Mapping[str, float]) -> float:
    shared = base.keys() & edited.keys()
    total = math.fsum(math.exp(base[text]) * (base[text] - edited[text]) for text in shared)
    left = 1 - math.fsum(math.exp(base[text]) for text in shared)
    if left > 0:
        other = max(_LEAST, 1 - math.fsum(math.exp(edited[text]) for text in shared))
        total += left * math.log(left / other)
    return max(0.0, total)


def _best(tokens: Mapping[str, float]) -> str | None:
    return max(tokens, key=tokens.__getitem__, default=None)
