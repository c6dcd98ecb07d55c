"""Where axes go in the operations of a loader, checked with numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from weight_edit.anatomy.disk.layout import Piece
from weight_edit.anatomy.disk.traced_axes import Traced, kept_axes


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((4, 6), (4, 6), (0, 1)),
        ((4, 6, 5), (4, 3, 2, 5), (0, None, None, 2)),
        ((4, 3, 2, 5), (4, 6, 5), (0, None, 3)),
        ((4, 6), (24,), (None,)),
        ((4, 1, 6), (4, 6), (0, 2)),
        ((6, 4), (4, 6), (None, None)),
        ((4, 6), (2, 2, 6), (None, None, 1)),
    ],
)
def test_which_axes_a_reshape_keeps(before: Any, after: Any, kept: Any) -> None:
    assert kept_axes(before, after) == kept


@pytest.mark.parametrize(
    ("operation", "axes"),
    [
        (lambda x: x.transpose(0, 2).contiguous(), (2, 1, 0)),
        (lambda x: torch.transpose(x, dim0=-1, dim1=0), (2, 1, 0)),
        (lambda x: x.chunk(2, dim=1)[1], (0, None, 2)),
        (lambda x: torch.split(x, [1, 5], dim=-2)[1], (0, None, 2)),
        (lambda x: torch.stack([x, x], dim=1), (0, None, 1, 2)),
        (lambda x: torch.cat([x, x], dim=2), (0, 1, None)),
        (lambda x: x.reshape(4, 3, 2, 5).transpose(1, 2).reshape(4, 6, 5), (0, None, 2)),
        # What is not known is not guessed.
        (lambda x: x.view(torch.int32), (None, None, None)),
        (lambda x: x.flip(0), (None, None, None)),
        (lambda x: x - 1, (None, None, None)),
    ],
)
def test_where_axes_go(operation: Any, axes: Any) -> None:
    found = operation(Traced.of("x", (4, 6, 5)))
    assert set(found.pieces) == {Piece("x", axes)}


STEPS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.transpose(0, -1),
    lambda x: x.flip(0),
    lambda x: x.chunk(2, dim=0)[-1],
    lambda x: x.reshape(x.shape[0], -1),
    lambda x: x.reshape(-1, x.shape[-1]),
    lambda x: x.reshape(2, -1, *x.shape[1:]) if x.shape[0] % 2 == 0 else x.contiguous(),
    lambda x: x.unsqueeze(1),
    lambda x: torch.stack([x, x], dim=1),
    lambda x: torch.cat([x, 2 * x], dim=-1),
    lambda x: torch.split(x, [1, x.shape[0] - 1], dim=0)[1] if x.shape[0] > 1 else x,
]


@given(steps=st.lists(st.sampled_from(range(len(STEPS))), max_size=5))
def test_an_axis_that_is_said_to_be_whole_is(steps: list[int]) -> None:
    """What is done along it to the tensor on disk is done along it to the parameter."""
    stored = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    traced: Any = Traced.of("x", stored.shape)
    before = stored
    for step in steps:
        traced, before = STEPS[step](traced), STEPS[step](before)
    assert tuple(traced.shape) == tuple(before.shape)
    for piece in traced.pieces:
        for axis, along in enumerate(piece.axes):
            if along is not None:
                factors = torch.arange(1.0, stored.shape[along] + 1)
                after = stored * factors.reshape([-1 if a == along else 1 for a in range(3)])
                for step in steps:
                    after = STEPS[step](after)
                assert torch.equal(
                    after, before * factors.reshape([-1 if a == axis else 1 for a in range(before.ndim)])
                )
