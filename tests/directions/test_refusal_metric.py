"""The refusal metric is the log odds of the refusal tokens, and the tokens found cover the difference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.directions.refusal_metric import find_refusal_tokens, refusal_metric, token_ids
from weight_edit.errors import UsageError


@given(st.integers(0, 2**31), st.sets(st.integers(0, 9), min_size=1, max_size=9))
def test_metric_is_the_log_odds_of_the_tokens(seed, tokens):
    logprobs = torch.randn(5, 10, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)
    p = logprobs.exp()[:, sorted(tokens)].sum(-1)
    torch.testing.assert_close(refusal_metric(logprobs, tokens), torch.log(p) - torch.log(1 - p))
    others = set(range(10)) - tokens
    torch.testing.assert_close(refusal_metric(logprobs, others), -refusal_metric(logprobs, tokens))


def test_metric_keeps_its_digits_at_both_ends():
    logits = torch.tensor([[60.0, 0.0], [0.0, 60.0]]).log_softmax(-1)
    assert refusal_metric(logits, [0]).tolist() == pytest.approx([60.0, -60.0])


@pytest.mark.parametrize("tokens", [[], [0, 1, 2], [3], [-1]])
def test_metric_refuses_tokens_that_say_nothing(tokens):
    with pytest.raises(UsageError, match="refusal token"):
        refusal_metric(torch.zeros(1, 3), tokens)


def probabilities(*rows):
    return torch.tensor(rows).clamp(min=1e-12).log()


def test_tokens_that_cover_nine_tenths_of_the_difference():
    refused = probabilities([0.0, 0.6, 0.3, 0.05, 0.05], [0.0, 0.5, 0.3, 0.15, 0.05])
    answered = probabilities([0.9, 0.0, 0.05, 0.0, 0.05])
    # Differences: token 1 .55, token 2 .25, token 3 .1; two of them are 8/9, which is too little.
    assert find_refusal_tokens(refused, answered) == [1, 2, 3]
    assert find_refusal_tokens(refused, answered, covered=0.85) == [1, 2]
    assert find_refusal_tokens(refused, answered, most=1) == [1]
    assert find_refusal_tokens(answered, refused) == [0]


@given(st.integers(0, 2**31))
def test_found_tokens_are_more_probable_in_refusals_and_few(seed):
    generator = torch.Generator().manual_seed(seed)
    refused, answered = (torch.randn(6, 50, generator=generator).log_softmax(-1) for _ in range(2))
    found = find_refusal_tokens(refused, answered)
    difference = refused.double().exp().mean(0) - answered.double().exp().mean(0)
    assert 1 <= len(found) == len(set(found)) <= 20
    assert (difference[found] > 0).all()
    positive = difference.clamp(min=0)
    if len(found) < 20:
        assert difference[found].sum() >= 0.9 * positive.sum() - 1e-12
        assert difference[found[:-1]].sum() < 0.9 * positive.sum()
    rest = [token for token in range(50) if token not in found]
    assert difference[found].min() >= difference[rest].max()


def test_classes_that_begin_alike():
    same = torch.full((2, 4), math.log(0.25))
    with pytest.raises(UsageError, match="same first tokens"):
        find_refusal_tokens(same, same)


def test_tokens_by_word_and_by_id(small_model):
    tokenizer = small_model("llama").tokenizer
    sorry, cannot = tokenizer.convert_tokens_to_ids(["sorry", "I"])
    assert token_ids(["I cannot", "sorry", sorry, 3], tokenizer) == sorted({cannot, sorry, 3})
    for word in ("unheard-of", ""):
        with pytest.raises(UsageError, match="not in the tokenizer's vocabulary"):
            token_ids([word], tokenizer)
