"""A stack's tokens against transformers': near-ties pass by the noise of the base, and nothing else does."""

from types import SimpleNamespace

import pytest
import torch
from stacks.comparison import agreement
from stacks.replies import Reply

# Margins of 2 at every place, and a near-tie of .01 behind token 3.
ROWS = {1: [0.0, 0.0, 4.0, 2.0], 2: [0.0, 0.0, 2.0, 4.0], 3: [0.0, 3.0, 2.99, 0.0]}


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


def compared(said: Reply, new_tokens: int = 3):
    return agreement(model, [[1]], [said], ends={2}, new_tokens=new_tokens)


def test_equal_tokens_have_no_margin_and_no_noise() -> None:
    found = compared(reply([2, 3, 1]))
    assert found.verdict(0) == "equal"
    assert (found.places, found.noise) == (3, pytest.approx(0, abs=1e-6))
    assert found.typical == pytest.approx(2)


def test_a_near_tie_passes_by_the_noise_of_the_base_alone() -> None:
    base = compared(reply([2, 3, 1], off=0.02))
    edit = compared(reply([2, 3, 2], off=0.02))
    assert base.noise == pytest.approx(0.02, abs=1e-6)
    assert edit.margins == [pytest.approx(0.01, abs=1e-6)]
    assert edit.holds(base.noise)
    assert not edit.holds(0.005)
    assert "1 near-ties of 3" in edit.verdict(base.noise)
    assert "**1 of 3 differ**" in edit.verdict(0.005)


def test_a_noise_as_large_as_margins_excuses_nothing() -> None:
    found = compared(reply([2, 2, 3], off=3.0))
    assert found.margins == [pytest.approx(2)]
    assert found.noise > 2
    assert not found.holds(found.noise)


def test_a_reply_may_end_where_transformers_ends_and_nowhere_else() -> None:
    ends = agreement(model, [[1]], [reply([])], ends={2}, new_tokens=3)
    assert (ends.stopped, ends.places) == (0, 0)
    assert compared(reply([2])).stopped == 0
    assert compared(reply([2, 3])).stopped == 1
    assert not compared(reply([2, 3])).holds(10)


def test_other_tokens_of_the_prompt_are_counted() -> None:
    assert compared(reply([2, 3, 1], read=[1, 1])).misread == 1
    assert compared(reply([2, 3, 1], read=[1])).misread == 0
