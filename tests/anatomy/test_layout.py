"""Pieces whose names count up are written short, and are the same pieces."""

import pytest

from weight_edit.anatomy.disk.layout import Piece, Run, runs_of


@pytest.mark.parametrize(
    "names",
    [
        ["a.0.b", "a.1.b", "a.2.b"],
        ["a.9.b", "a.10.b"],
        ["a.0.b", "a.2.b", "a.3.b"],
        ["a.0.0", "a.1.0", "a.1.1"],
        ["a.00", "a.01"],
        ["a"],
        ["w1", "w2", "w3.0"],
        ["x.1.y.1", "x.2.y.2"],
    ],
)
def test_runs_are_the_same_pieces(names: list[str]) -> None:
    pieces = [Piece(name, (None, 0)) for name in names]
    assert [piece for run in runs_of(pieces) for piece in run] == pieces


def test_a_run_is_as_long_as_it_can_be() -> None:
    pieces = [Piece(f"layers.3.experts.{e}.w{w}.weight", (None, 0)) for w in (1, 3) for e in range(12)]
    assert runs_of(pieces) == tuple(Run("layers.3.experts.", 0, 12, f".w{w}.weight", (None, 0)) for w in (1, 3))
    other = [Piece("a.0", (0,)), Piece("a.1", (1,))]
    assert len(runs_of(other)) == 2
