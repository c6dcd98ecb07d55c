"""The refusal metric: log-odds of a refusal's first token (arXiv 2406.11717)."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.evaluation.kl import exact

COVERED = 0.9
MOST_TOKENS = 20


def refusal_metric(logprobs: Tensor, tokens: Collection[int]) -> Tensor:
    """`log p - log(1 - p)` per prompt, p being the total probability of the refusal tokens.

    Both logarithms are sums over their own tokens in float64, so that neither p near 0 nor p near 1 loses
    digits (the published code adds 1e-8 to both instead).

    Args:
        logprobs: log-probabilities of the next token, or logits, which give the same: (n, vocabulary).
        tokens: ids of the refusal tokens.

    Returns:
        (n,) float64 on the same device, float32 where that has no float64; positive where refusal is more probable
        than not.

    Raises:
        UsageError: no token, one outside the vocabulary, or all of the vocabulary.
    """
    vocabulary = logprobs.shape[-1]
    outside = [token for token in tokens if not 0 <= token < vocabulary]
    if outside:
        raise UsageError(f"refusal token {outside[0]} is outside the vocabulary of {vocabulary}")
    chosen = sorted(set(tokens))
    if not chosen or len(chosen) == vocabulary:
        raise UsageError(f"{len(chosen)} refusal tokens of {vocabulary} cannot tell refusals from answers")
    values, where = exact(logprobs), torch.tensor(chosen, device=logprobs.device)
    # Without a selection of the others by a mask: its size is not known on an accelerator without waiting for it.
    others = values.index_fill(-1, where, -torch.inf)
    return values[:, where].logsumexp(dim=-1) - others.logsumexp(dim=-1)


def find_refusal_tokens(
    refused_logprobs: Tensor, answered_logprobs: Tensor, *, covered: float = COVERED, most: int = MOST_TOKENS
) -> list[int]:
    """The first tokens that are more probable on refused prompts than on answered ones.

    Tokens are ranked by their mean probability on refused prompts minus that on answered ones. The result is
    the shortest start of that ranking that holds `covered` of the total positive difference, at most `most`
    tokens.

    Args:
        refused_logprobs: (n, vocabulary); answered_logprobs: (m, vocabulary).

    Raises:
        UsageError: the two classes have the same first tokens.
    """
    difference = refused_logprobs.double().exp().mean(dim=0) - answered_logprobs.double().exp().mean(dim=0)
    gained = difference.clamp(min=0)
    # Stable, so that equal differences are ranked by id on every machine.
    values, order = gained.sort(descending=True, stable=True)
    total = float(values.sum())
    if total < 1e-6:
        raise UsageError(
            "target and baseline prompts are answered with the same first tokens, so no refusal tokens can "
            "be found; check the prompts, or name the tokens"
        )
    needed = int((values.cumsum(dim=0) < covered * total).sum()) + 1
    count = min(needed, most, int((values > 0).sum()))
    return [int(token) for token in order[:count]]


def token_ids(tokens: Sequence[int | str], tokenizer: Any) -> list[int]:
    """Refusal tokens as ids; of a word the first token counts ("I cannot" gives that of "I").

    Raises:
        UsageError: a word gives no token.
    """
    found: list[int] = []
    for token in tokens:
        if isinstance(token, int):
            found.append(token)
            continue
        ids = tokenizer.encode(token, add_special_tokens=False)
        if not ids or ids[0] == tokenizer.unk_token_id:
            raise UsageError(f"refusal token {token!r} is not in the tokenizer's vocabulary; give another or an id")
        found.append(int(ids[0]))
    return sorted(set(found))
