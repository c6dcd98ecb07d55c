"""What stands between a value and the stream: gains per channel and means, however a norm is written."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import WIDTH, numbers, toy
from weight_edit.anatomy.backtrace import Backtrace, NotUnderstoodError
from weight_edit.anatomy.norms import CENTRING, NORMALISING, Factor, Through, normalises, standing_between, turning

WEIGHT = nn.Parameter(numbers(WIDTH, 4))
GAIN, BIAS = 1 + 0.3 * numbers(WIDTH), 0.3 * numbers(WIDTH, seed=2)
INNER = numbers(2, 5, 4)


def between(norm: Any, **parts: Any) -> dict[str, Through]:
    """What is found between each parameter and the stream, where `norm(model, x)` gives the stream."""
    parts = {"gain": GAIN, "bias": BIAS, **parts}

    def run(model: Any, inner: Tensor) -> Tensor:
        return norm(model, inner @ model.weight.T)

    _, graph = toy(run, {"inner": INNER}, weight=numbers(WIDTH, 4), **parts)
    writing = Backtrace(graph)
    writing.follow([graph.steps[-1].made[0]])
    return {source.parameter: source.through for source in writing.sources.values()}


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def standardised(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


GAIN_0, GAIN_1 = Factor("gain", 0.0), Factor("gain", 1.0)


@pytest.mark.parametrize(
    ("norm", "through"),
    [
        (lambda m, x: m.gain * rms(x), (GAIN_0, NORMALISING)),
        (lambda m, x: rms(x) * m.gain, (GAIN_0, NORMALISING)),
        (lambda m, x: (1 + m.gain) * rms(x), (GAIN_1, NORMALISING)),
        (lambda m, x: (m.gain.float() + 1.0) * rms(x.float()).type_as(x), (GAIN_1, NORMALISING)),
        (lambda m, x: m.gain * x / INNER.norm(dim=-1, keepdim=True), (GAIN_0,)),
        (lambda m, x: rms(x), (NORMALISING,)),
        (lambda m, x: m.gain * x, (GAIN_0,)),
        (lambda m, x: m.gain * standardised(x), (GAIN_0, NORMALISING, CENTRING)),
        (lambda m, x: nn.functional.layer_norm(x, (WIDTH,), m.gain), (GAIN_0, NORMALISING, CENTRING)),
        (lambda m, x: nn.functional.layer_norm(x, (WIDTH,)), (NORMALISING, CENTRING)),
        (lambda m, x: nn.functional.layer_norm(x, (WIDTH,), 1 + m.gain), (GAIN_1, NORMALISING, CENTRING)),
        (lambda m, x: nn.functional.rms_norm(x, (WIDTH,), m.gain), (GAIN_0, NORMALISING)),
        (lambda m, x: x - x.mean(-1, keepdim=True), (CENTRING,)),
        (lambda m, x: x * 0.3, ()),
    ],
)
def test_norms_written_out_and_fused(norm: Any, through: Through) -> None:
    assert between(norm) == {"weight": through}


def test_the_bias_of_a_norm_goes_to_the_stream_as_it_is() -> None:
    through = (GAIN_0, NORMALISING, CENTRING)
    fused = between(lambda m, x: nn.functional.layer_norm(x, (WIDTH,), m.gain, m.bias))
    written = between(lambda m, x: m.gain * standardised(x) + m.bias)
    assert fused == written == {"weight": through, "bias": ()}


@pytest.mark.parametrize(
    "norm",
    [
        lambda m, x: torch.sigmoid(x.mean() * m.gain) * x,
        lambda m, x: torch.sigmoid(m.gate(x)) * x,
        lambda m, x: (m.gain * m.bias) * x,
        lambda m, x: (2 + m.gain) * x,
        lambda m, x: m.gain.square() * x,
        lambda m, x: x - m.gate(x).mean(-1, keepdim=True) * numbers(WIDTH),
    ],
    ids=["input in the gain", "gated", "two parameters", "another offset", "another function", "no mean of its own"],
)
def test_what_is_no_gain_is_refused(norm: Any) -> None:
    with pytest.raises(NotUnderstoodError, match="written into the residual stream"):
        between(norm, gate=nn.Linear(WIDTH, WIDTH))


def test_a_number_that_depends_on_another_value_is_no_norm() -> None:
    _, graph = toy(lambda m, x, y: x * y.mean(-1, keepdim=True), {"x": numbers(2, 5, WIDTH), "y": numbers(2, 5, 3)})
    step = graph.steps[-1]
    assert not normalises(graph, step, 0)
    _, graph = toy(lambda m, x: x * x.square().mean(-1, keepdim=True), {"x": numbers(2, 5, WIDTH)})
    assert normalises(graph, graph.steps[-1], 0)


def test_only_gains_and_means_turn_a_direction() -> None:
    assert turning((GAIN_1, NORMALISING, CENTRING)) == (GAIN_1, CENTRING)
    assert turning((NORMALISING,)) == ()


def test_a_layer_norm_over_more_than_the_stream_is_none() -> None:
    _, graph = toy(lambda m, x: nn.functional.layer_norm(x, (5, WIDTH)), {"x": numbers(2, 5, WIDTH)})
    step = next(s for s in graph.steps if s.name == "aten.native_layer_norm.default")
    assert standing_between(graph, step, 0, -1) is None
    assert standing_between(graph, step, 1, -1) is None
