"""A kernel's strength at a layer is the published one: linear from its highest to its lowest, and nothing beyond."""

import pytest

from weight_edit.edits.kernel import Kernel, Kernels

HERETIC = Kernel(max=1.2, min=0.2, position=0.5, width=0.4)
"""On 21 blocks: highest at block 10, lowest eight blocks away."""


@pytest.mark.parametrize(
    ("layer", "strength"),
    [
        (10, 1.2),
        (8, 0.95),
        (12, 0.95),
        (6, 0.7),
        (14, 0.7),
        (2, 0.2),
        (18, 0.2),
        (1, 0.0),
        (19, 0.0),
        (0, 0.0),
        (20, 0.0),
    ],
)
def test_strength_at_its_position_at_half_its_width_at_its_end_and_beyond(layer: int, strength: float) -> None:
    assert HERETIC.at(layer, 21) == pytest.approx(strength, abs=1e-12)


def test_a_kernel_that_rises_outwards_is_linear_too() -> None:
    kernel = Kernel(max=0.4, min=1.0, position=0.0, width=1.0)
    assert [kernel.at(layer, 5) for layer in range(5)] == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0])


def test_a_position_between_two_blocks() -> None:
    kernel = Kernel(max=1.0, min=0.0, position=0.5, width=0.5)
    assert [kernel.at(layer, 4) for layer in range(4)] == pytest.approx([0.0, 2 / 3, 2 / 3, 0.0])


def test_one_block_is_at_the_beginning() -> None:
    assert Kernel(max=1.5, position=0.0).at(0, 1) == 1.5
    assert Kernel(max=1.5, position=0.6).at(0, 1) == 0.0


def test_each_kind_of_writer_has_its_own_kernel_and_embeddings_the_plain_strength() -> None:
    kernels = Kernels(attention=HERETIC)
    assert kernels.at("attention", 6, 21) == pytest.approx(0.7)
    assert kernels.at("mlp", 6, 21) == 1.0
    assert kernels.at("attention", None, 21) == 1.0
    assert Kernels(mlp=HERETIC).at("experts", 6, 21) == pytest.approx(0.7)
