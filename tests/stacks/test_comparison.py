"""A stack's tokens against transformers': near-ties pass by a noise that no reply goes into."""

from types import SimpleNamespace

import pytest
import torch
from stacks.comparison import Agreement, Place, agreement
from stacks.replies import Reply

# Margins of 2 at every place, and a near-tie of .01 behind token 3.
ROWS = {1: [0.0, 0.0, 4.0, 2.0], 2: [0.0, 0.0, 2.0, 4.0], 3: [0.0, 3.0, 2.99, 0.0]}
LOUD = 100.0
"""A noise that excuses every difference."""


def model(ids: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(logits=torch.tensor([[ROWS[int(token)] for token in ids[0]]]))


def reply(tokens: list[int], off: float = 0.0, **more: list[int]) -> Reply:
    """Tokens with the margins that the model has, but for `off`."""
    top = []
    for before, token in zip([1, *tokens], tokens, strict=False):
        row = torch.tensor(ROWS[before]).log_softmax(-1)
        other = int(row.clone().index_fill_(0, torch.tensor(token), -9).argmax())
        top.append([(token, float(row[token]) + off), (other, float(row[other]))])
    return Reply(tokens=tokens, top=top, **more)


def compared(*said: Reply, new_tokens: int = 3) -> Agreement:
    return agreement(model, [[1]] * len(said), said, ends={2}, new_tokens=new_tokens)


def test_equal_tokens_have_no_margin_and_no_error() -> None:
    found = compared(reply([2, 3, 1]))
    assert str(found.judged(noise=0)) == "equal"
    assert len(found.places) == 3
    assert not found.differences
    assert found.error == pytest.approx(0, abs=1e-6)


def test_a_near_tie_passes_by_the_noise_alone() -> None:
    found = compared(reply([2, 3, 2], off=0.02))
    assert [place.margin for place in found.differences] == [pytest.approx(0.01, abs=1e-6)]
    assert found.judged(noise=0.02).holds
    assert str(found.judged(noise=0.02)) == "1 near-tie of 3 (margin 0.01, noise 0.02)"
    assert not found.judged(noise=0.005).holds
    assert str(found.judged(noise=0.005)).startswith("**1 of 3 differ**")


@pytest.mark.parametrize("off", [0.0, 0.02, 1.6, 50.0])
def test_an_error_of_the_stack_excuses_nothing(off: float) -> None:
    # The error is large where the tokens agree, too, as where something is dropped; the precision has nothing of it.
    found = compared(reply([2, 3, 2], off=off), reply([2, 3, 1], off=off))
    assert found.error == pytest.approx(off, abs=1e-4)
    assert not found.judged(noise=1e-5).holds


def test_a_place_that_differs_adds_nothing_to_the_error() -> None:
    found = Agreement(places=[Place(margin=2.0, error=4.0), Place(margin=0.0, error=0.5)], misread=0, stopped=0)
    assert found.error == 0.5


def test_a_reply_may_end_where_transformers_ends_and_nowhere_else() -> None:
    ends = compared(reply([]))
    assert ends.stopped == 0
    assert compared(reply([2])).stopped == 0
    early = compared(reply([2, 3]))
    assert early.stopped == 1
    assert not early.judged(noise=LOUD).holds


def test_nothing_compared_does_not_hold() -> None:
    nothing = compared(reply([])).judged(noise=LOUD)
    assert not nothing.holds
    assert str(nothing) == "**nothing compared**"


@pytest.mark.parametrize("top", [[], [[(2, -0.1), (3, -2.1)]], [[(2, -0.1), (3, -2.1)], [(3, -0.1)]]])
def test_a_reply_without_probabilities_of_each_place_is_refused(top: list[list[tuple[int, float]]]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Reply(tokens=[2, 3], top=top)


def test_a_place_without_probabilities_is_compared_by_its_token() -> None:
    untold = Reply(tokens=[2, 2], top=[None, None])
    found = compared(untold, new_tokens=2)
    assert [place.margin for place in found.places] == [0, pytest.approx(2)]
    assert found.error == 0


def test_other_tokens_of_the_prompt_are_counted() -> None:
    assert compared(reply([2, 3, 1], read=[1, 1])).misread == 1
    assert compared(reply([2, 3, 1], read=[1])).misread == 0
