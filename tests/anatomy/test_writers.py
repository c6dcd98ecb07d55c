"""Sources of the stream as writers: roles, biases, norms, and where a hook does the same."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import IDS, WIDTH, Block, Decoder, Mixer, Mlp, numbers
from weight_edit.anatomy.backtrace import Backtrace
from weight_edit.anatomy.blocks import block_calls
from weight_edit.anatomy.graph.recording import record
from weight_edit.anatomy.mixing import mixing_parts
from weight_edit.anatomy.parts import Norm, Writer
from weight_edit.anatomy.writers import writers_of
from weight_edit.plan.plan import plan_ablation
from weight_edit.proofs.architecture import edit_in_memory


def written(model: Decoder, **more: Any) -> dict[str, Writer]:
    """The writers by the names of their weights, in order."""
    inputs = {"input_ids": IDS, **more}
    graph = record(model, inputs)
    calls = block_calls(model, graph)
    writing = Backtrace(graph)
    writing.follow(value for call in calls for value in (call.given, call.returned) if value is not None)
    found = writers_of(model, writing, "embed.weight", calls, mixing_parts(model, inputs, graph, calls))
    return {writer.weight: writer for writer in found}


def test_roles_layers_and_order() -> None:
    found = written(Decoder([Block(), Block()]))
    assert [(w.module, w.role, w.layer, w.axis) for w in found.values()] == [
        ("embed", "embedding", None, 1),
        ("blocks.0.mixer.out", "attention", 0, 0),
        ("blocks.0.mlp.down", "mlp", 0, 0),
        ("blocks.1.mixer.out", "attention", 1, 0),
        ("blocks.1.mlp.down", "mlp", 1, 0),
    ]
    assert all(w.bias is None and w.norm is None and w.scale == 1 for w in found.values())


def test_biases_belong_to_their_weights() -> None:
    found = written(Decoder([Block(bias=True)]))
    assert set(found) == {"embed.weight", "blocks.0.mixer.out.weight", "blocks.0.mlp.down.weight"}
    assert found["blocks.0.mlp.down.weight"].bias == "blocks.0.mlp.down.bias"
    assert found["blocks.0.mlp.down.weight"].bias_axis == 0


class Positioned(Decoder):
    """Learned positions, an embedding narrower than the stream, a factor."""

    def __init__(self) -> None:
        super().__init__([Block()])
        self.positions, self.narrow, self.into = nn.Embedding(9, WIDTH), nn.Embedding(11, 3), nn.Linear(3, WIDTH)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        places = torch.arange(input_ids.shape[1])
        x = 8 * self.embed(input_ids) + self.positions(places) + self.into(self.narrow(input_ids))
        return SimpleNamespace(logits=self.head(self.norm(self.stream(x))))


def test_what_stands_in_front_of_the_blocks() -> None:
    found = written(Positioned())
    front = {w.weight: (w.role, w.scale, w.bias) for w in found.values() if w.layer is None}
    assert front == {
        "embed.weight": ("embedding", 8.0, None),
        "positions.weight": ("position", 1.0, None),
        "into.weight": ("input", 1.0, "into.bias"),
    }


class Stacked(nn.Module):
    """Fused experts, (experts, in, out), with biases, each chosen for some tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.down_proj = nn.Parameter(numbers(3, 4, WIDTH))
        self.down_proj_bias = nn.Parameter(numbers(3, WIDTH))
        self.up = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.up(x).view(-1, 4).relu()
        given = torch.zeros(flat.shape[0], WIDTH)
        for number in range(3):
            rows = torch.arange(number, flat.shape[0], 3)
            given.index_add_(0, rows, flat[rows] @ self.down_proj[number] + self.down_proj_bias[number])
        return given.view(x.shape)


class Residual(nn.Module):
    """One part, and what is done with what it gives."""

    def __init__(self, part: nn.Module, **parts: Any) -> None:
        super().__init__()
        self.part = part
        for name, value in parts.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.between(self.part(x.tanh()))

    def between(self, given: Tensor) -> Tensor:
        return given


def test_fused_experts_are_one_writer_with_their_biases_hooked_where_all_of_them_end() -> None:
    found = written(Decoder([Residual(Stacked())]))
    experts = found["blocks.0.part.down_proj"]
    assert (experts.module, experts.axis, experts.role) == ("blocks.0.part", 2, "mlp")
    assert (experts.bias, experts.bias_axis) == ("blocks.0.part.down_proj_bias", 1)


class Owing(nn.Module):
    """A map that leaves its bias to others to add, as Falcon's and Cohere's fused kernels do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.shift = nn.Parameter(numbers(WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.shift


def test_a_vector_that_is_added_elsewhere_is_hooked_at_the_parameter() -> None:
    class Adding(Residual):
        def forward(self, x: Tensor) -> Tensor:
            given, shift = self.part(x.tanh())
            return x + given + shift

    found = written(Decoder([Adding(Owing())]))
    assert found["blocks.0.part.linear.weight"].module == "blocks.0.part.linear"
    shift = found["blocks.0.part.shift"]
    assert (shift.module, shift.bias, shift.axis) == ("", None, 0)


class Convolved(nn.Module):
    """A convolution, whose vectors lie along the second axis of its output, with another vector beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(WIDTH, WIDTH, kernel_size=1)
        self.first = nn.Parameter(numbers(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.convolution(x.mT).mT
        return torch.cat([self.first.expand(rows.shape[0], 1, WIDTH), rows[:, 1:]], dim=1)


def test_a_convolution_is_hooked_where_its_vectors_are_rows() -> None:
    """At its own output the hook would edit another axis, or none that is as long."""
    found = written(Decoder([Residual(Convolved())]))
    weight, first = (found[f"blocks.0.part.{name}"] for name in ("convolution.weight", "first"))
    assert (weight.module, weight.axis) == ("blocks.0.part", 0)
    assert first.module == "blocks.0.part"


class Normed(Residual):
    def between(self, given: Tensor) -> Tensor:
        return self.norm(given)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (
            nn.RMSNorm(WIDTH),
            Norm(module="blocks.0.norm", kind="rms", gain_offset=0.0, weight="blocks.0.norm.weight", bias=None),
        ),
        (
            nn.LayerNorm(WIDTH),
            Norm(
                module="blocks.0.norm",
                kind="layer",
                gain_offset=0.0,
                weight="blocks.0.norm.weight",
                bias="blocks.0.norm.bias",
            ),
        ),
        (
            nn.LayerNorm(WIDTH, bias=False),
            Norm(module="blocks.0.norm", kind="layer", gain_offset=0.0, weight="blocks.0.norm.weight", bias=None),
        ),
        (
            nn.RMSNorm(WIDTH, elementwise_affine=False),
            Norm(module="", kind="rms", gain_offset=0.0, weight=None, bias=None),
        ),
    ],
)
def test_a_norm_behind_a_writer(norm: nn.Module, expected: Norm) -> None:
    found = written(Decoder([Normed(Mlp(bias=True), norm=norm)]))
    writer = found["blocks.0.part.down.weight"]
    assert writer.norm == expected
    assert (writer.module, writer.bias) == ("blocks.0.part.down", "blocks.0.part.down.bias")
    assert set(found) == {"embed.weight", "blocks.0.part.down.weight"}, "the norm's bias is no writer of its own"


def test_a_gain_alone_is_of_its_own_kind() -> None:
    class Gained(Residual):
        def between(self, given: Tensor) -> Tensor:
            return self.gain * given

    found = written(Decoder([Gained(Mlp(), gain=nn.Parameter(torch.ones(WIDTH)))]))
    norm = found["blocks.0.part.down.weight"].norm
    assert norm is not None
    assert (norm.kind, norm.weight) == ("gain", "blocks.0.gain")


class Twice(Residual):
    def between(self, given: Tensor) -> Tensor:
        return self.two(self.one(given))


@pytest.mark.parametrize(
    ("one", "two", "kinds"),
    [
        (nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH), ("rms", "rms")),
        (nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH), ("layer", "rms")),
        (nn.RMSNorm(WIDTH), nn.LayerNorm(WIDTH), ("rms", "layer")),
        (nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), ("layer", "layer")),
    ],
)
def test_two_norms_between_are_both_known_and_edited_through(
    one: nn.Module, two: nn.Module, kinds: tuple[str, str]
) -> None:
    model = Decoder([Twice(Mlp(bias=True), one=one, two=two)])
    found = written(model)
    writer = found["blocks.0.part.down.weight"]
    assert writer.norm is not None
    assert writer.norm.inner is not None
    assert (writer.norm.inner.kind, writer.norm.kind) == kinds
    assert (writer.norm.inner.module, writer.norm.module) == ("blocks.0.one", "blocks.0.two")
    v = torch.nn.functional.normalize(numbers(WIDTH), dim=0)
    anatomy = SimpleNamespace(
        d_model=WIDTH, n_layers=1, writers=tuple(found.values()), tied=False, embedding_weight="embed.weight"
    )
    plan = plan_ablation(anatomy, v[None], model.get_parameter)
    edit_in_memory(model, plan)
    ends = model.stream(model.embed(IDS)).detach()
    assert float((ends @ v).abs().max()) < 1e-5


def test_a_part_that_is_added_twice_is_one_writer() -> None:
    class Again(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = x + self.part(x.tanh())
            return x + self.part(x.tanh())

    assert list(written(Decoder([Again(Mixer())]))) == ["embed.weight", "blocks.0.part.out.weight"]
