"""A kernel's strength at a layer is the published one: linear from its highest to its lowest, and nothing beyond."""

import json
from typing import Any

import numpy as np
import pytest

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernel, Kernels, kernels_in_words
from weight_edit.errors import UsageError
from weight_edit.plan.step import EditStep
from weight_edit.utils.settings import validated

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


BY_LAYER = {"attention": [0.5, 0.0, 1.25], "mlp": None, "embedding": 0.75}
"""Numbers for three layers, as a manifest holds them."""


def test_numbers_by_layer_are_the_factors_of_their_layers() -> None:
    kernels = validated(Kernels, BY_LAYER, "kernel")
    assert [kernels.at("attention", layer, 3) for layer in range(3)] == [0.5, 0.0, 1.25]
    assert [kernels.at("mlp", layer, 3) for layer in range(3)] == [1.0, 1.0, 1.0]
    assert kernels.at("embedding", None, 3) == kernels.at("projector", None, 3) == 0.75
    assert (kernels.layers, Kernels(attention=HERETIC).layers) == (3, None)


@pytest.mark.parametrize("mode", ["python", "json"])
def test_a_manifest_says_of_earlier_kernels_what_it_always_said(mode: str) -> None:
    """Byte for byte: edits are compared by what their manifests say, and runs resumed by it."""
    said = Kernels(attention=HERETIC).model_dump(mode=mode)
    assert said == {"attention": {"max": 1.2, "min": 0.2, "position": 0.5, "width": 0.4}, "mlp": None}
    assert validated(Kernels, BY_LAYER, "kernel").model_dump(mode=mode) == BY_LAYER


@pytest.mark.parametrize("entry", [BY_LAYER, {"attention": None, "mlp": {"max": 0.5}}, {"mlp": [1.0, 0.3]}])
def test_a_step_with_factors_by_layer_is_read_back_from_its_manifest(entry: dict[str, Any]) -> None:
    step = EditStep(directions=DirectionRows(np.eye(1, 8)), kernel=validated(Kernels, entry, "kernel"))
    again = EditStep.from_dict(json.loads(json.dumps(step.to_dict())))
    assert again.kernel == step.kernel
    assert again.to_dict() == step.to_dict()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"mlp": 0.5}, r"'mlp': write a kernel, .* or a list with a number for each layer \(it is 0.5\)"),
        ({"mlp": [1.0, "x"]}, r"'mlp.1': .*number.*\(it is 'x'\)"),
        ({"mlp": [1.0, 2.5]}, r"'mlp.1': .*less than or equal to 2"),
        ({"mlp": {"hight": 1}}, r"'mlp.hight' is not a key; known keys: max, min, position, width"),
        ({"embedding": -0.5}, r"'embedding': .*greater than or equal to 0"),
        ({"mlp": [1.0], "attention": [1.0, 1.0]}, r"unlike many layers: 2 and 1$"),
        ({"embedding": list(range(1000))}, r"^.{1,250}\.\.\.\)$"),
    ],
)
def test_wrong_factors_are_named_in_one_short_line(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        validated(Kernels, entry, "kernel")
    assert "<" not in str(caught.value), "forms of a value are no keys"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"attention": None, "mlp": {"max": 1.0}}, "weaker by layer as its kernel says"),
        (
            {"attention": [0.25] * 40, "mlp": [1.0, 0.123456, 2.0]},
            "times attention 0.25, MLP 0.123 to 2 by layer",
        ),
        (BY_LAYER, "times attention 0 to 1.25 by layer, embedding 0.75"),
        ({"mlp": [0.5, 1.0], "attention": {"max": 1.0}}, "times MLP 0.5 to 1 by layer, others as their kernel says"),
        ({"embedding": 0.0}, "times embedding 0"),
    ],
)
def test_factors_are_told_in_a_few_words(entry: dict[str, Any], words: str) -> None:
    assert kernels_in_words(entry) == words
