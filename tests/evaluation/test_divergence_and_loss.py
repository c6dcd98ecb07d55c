"""Divergences and losses equal values computed by hand and fail where they are not finite."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.divergence import divergence
from weight_edit.evaluation.loss import cross_entropy


def logs(*rows):
    return torch.tensor(rows).log()


def test_by_hand():
    result = divergence(logs([0.5, 0.25, 0.25], [0.9, 0.1, 0.0]), logs([0.25, 0.5, 0.25], [0.9, 0.1, 0.0]))
    by_hand = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert result.per_prompt.dtype is torch.float64
    assert result.per_prompt.tolist() == pytest.approx([by_hand, 0.0], abs=1e-7)
    assert (result.mean, result.max) == (pytest.approx(by_hand / 2), pytest.approx(by_hand))
    assert (result.agreement.count, result.agreement.total) == (1, 2)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_never_negative_zero_for_equals_and_indifferent_to_a_shift(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    base, edited = torch.randn(2, rows, 11, generator=generator).log_softmax(-1)
    result = divergence(base, edited)
    assert result.per_prompt.min() >= 0
    same = divergence(base, base)
    assert same.max == 0
    assert same.agreement.value == 1
    assert divergence(base + 1e-3, edited).mean == pytest.approx(result.mean, rel=1e-4)


@pytest.mark.parametrize(
    ("base", "edited"),
    [
        (logs([0.5, 0.5]), torch.tensor([[math.nan, 0.0]])),
        (torch.tensor([[math.nan, 0.0]]), logs([0.5, 0.5])),
        (logs([0.5, 0.5]), logs([1.0, 0.0])),
    ],
)
def test_what_is_not_finite_fails(base, edited):
    with pytest.raises(VerificationError, match="divergence on prompt 1"):
        divergence(base, edited)


def test_other_prompts_or_none_are_refused():
    with pytest.raises(UsageError, match=r"\(2, 3\) of the base and \(2, 4\)"):
        divergence(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="zero prompts"):
        divergence(torch.zeros(0, 3), torch.zeros(0, 3))


def test_loss_is_the_mean_over_all_tokens():
    loss = cross_entropy([torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-6.0])])
    assert (loss.mean, loss.tokens, loss.answers) == (3.0, 4, 2)
    assert loss.perplexity == pytest.approx(math.exp(3))


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_a_loss_that_is_not_finite_fails(value):
    with pytest.raises(VerificationError, match="loss of answer 2"):
        cross_entropy([torch.tensor([-1.0]), torch.tensor([-1.0, value])])


def test_a_loss_over_nothing_is_an_error():
    with pytest.raises(UsageError, match="zero answer tokens"):
        cross_entropy([])
