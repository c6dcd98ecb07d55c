"""What the record of a forward pass holds, and that it can be run again."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import IDS, WIDTH, Block, Decoder, numbers, toy
from weight_edit.anatomy.graph.graph import CompositeOperation, Graph
from weight_edit.anatomy.graph.recording import record

X = numbers(2, 5, WIDTH)


class Doubled(torch.autograd.Function):
    """With the context among forward's arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * x


class Shifted(torch.autograd.Function):
    """With the context in a function of its own."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x + 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)


def through_views(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone()
    x.view(-1)[3:9] = 0
    x[0].add_(1)
    x.transpose(0, 1)[2].mul_(3)
    return x


def by_mask(model: nn.Module, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[x[..., 0] > 0] = x[x[..., 0] > 0] * 2
    return y


def by_index_add(model: nn.Module, x: Tensor) -> Tensor:
    flat = torch.zeros(5, x.shape[-1])
    flat.index_add_(0, torch.tensor([1, 3, 1]), x[0, :3])
    return flat


def masks_in_place(model: nn.Module, x: Tensor) -> Tensor:
    mask = x > 0
    mask |= x < -1
    mask &= x < 2
    mask ^= x > 1
    return x * mask


def through_lists(model: nn.Module, x: Tensor) -> Tensor:
    sizes = (x[0, :2, 0] > 0).long().sum()[None].tolist()
    return torch.cat(x.split([1 + sizes[0], 4 - sizes[0]], dim=1), dim=1) + torch.tensor([x[0, 0, 0], 2.0]).sum()


def through_numpy(model: nn.Module, x: Tensor) -> Tensor:
    return x * float(x[0].numpy().max())


def by_own_functions(model: nn.Module, x: Tensor) -> Tensor:
    return Shifted.apply(Doubled.apply(x))


def by_control_flow(model: nn.Module, x: Tensor) -> Tensor:
    return x + 1 if bool(x[0, 0, 0] > 0) else x - 1


FUNCTIONS = [
    through_views,
    by_mask,
    by_index_add,
    masks_in_place,
    through_lists,
    through_numpy,
    by_own_functions,
    by_control_flow,
]


def tensors_of(values: Any) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def replayed(graph: Graph) -> Tensor:
    """The output, computed anew from the inputs alone."""
    values: dict[int, Tensor] = {}
    for step in graph.steps:
        places = {p: values[id(a)] for p, a in enumerate(step.arguments) if id(a) in values}
        given = step.again(places)
        values |= {id(made): value for made, value in zip(step.made, given, strict=True)}
    assert graph.output is not None
    return values[id(graph.calls[-1].returned)]


class Holder(nn.Module):
    """A module, so that what it gives is among the calls."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_mutation_becomes_steps_that_give_the_same_again(function: Any) -> None:
    before = X.clone()
    wanted = function(None, X.clone())
    _, graph = toy(lambda model, x: model.part(x), {"x": X}, part=Holder(function))
    assert torch.equal(X, before), "the inputs are left alone"
    assert torch.equal(graph.calls[-1].returned, wanted)
    assert torch.equal(replayed(graph), wanted)
    for step in graph.steps:
        assert not step.op._schema.is_mutable, step.name
        makers = [maker for maker in map(graph.maker, tensors_of(step.arguments)) if maker is not None]
        assert all(maker.number <= step.number for maker in makers)


@pytest.mark.parametrize("fails", [False, True])
def test_what_it_changes_in_torch_for_a_while_is_put_back(fails: bool) -> None:
    def state() -> list[Any]:
        names = ("tolist", "numpy", "__iand__", "__ior__", "__ixor__")
        return [torch.tensor, torch.autograd.Function.__dict__["apply"], *(getattr(Tensor, name) for name in names)]

    before = state()

    def run(model: nn.Module, x: Tensor) -> Tensor:
        assert state() != before
        if fails:
            raise ValueError("stopped")
        return x + 1

    if fails:
        with pytest.raises(ValueError, match="stopped"):
            toy(run, {"x": X})
    else:
        toy(run, {"x": X})
    assert state() == before


def test_hooks_are_taken_off_again() -> None:
    model = Decoder([Block()])
    record(model, {"input_ids": IDS})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_calls_say_what_modules_were_given_and_gave() -> None:
    model = Decoder([Block(), Block()])
    graph = record(model, {"input_ids": IDS})
    names = [call.name for call in graph.calls]
    assert names[:2] == ["embed", "blocks.0.norm1"]
    assert names.index("blocks.0.mlp.down") < names.index("blocks.0.mlp") < names.index("blocks.0")
    calls = {call.name: call for call in graph.calls}
    assert calls["blocks.1"].given is calls["blocks.0"].returned
    assert calls["blocks.0.mlp"].given is calls["blocks.0.norm2"].returned
    outer, inner = calls["blocks.0"], calls["blocks.0.mlp.up"]
    assert outer.first < inner.first < inner.last < outer.last
    made = {id(value) for step in graph.steps[inner.first : inner.last] for value in step.made}
    assert id(inner.returned) in made


class Keywords(nn.Module):
    def forward(self, *, first: Tensor | None = None, second: Tensor | None = None, third: Any = None) -> Any:
        assert second is not None
        return {"ids": second.argmax(-1)} if third else (None, second * 2)


def test_a_call_by_keywords_is_known_by_its_first_tensor_and_its_names() -> None:
    def run(model: Any, x: Tensor) -> Tensor:
        model.part(second=x, third=True)
        return model.part(first=None, second=x)[1]

    _, graph = toy(run, {"x": X}, part=Keywords())
    (call,) = graph.calls
    assert call.keywords == {"second"}
    assert call.given is not None
    assert torch.equal(call.given, X)
    assert torch.equal(call.returned, 2 * X)


def test_only_the_branch_that_ran_is_recorded() -> None:
    def run(model: Any, x: Tensor) -> Tensor:
        chosen = (model.router(x[0, 0]).argmax() == 0).item()
        return model.one(x) if chosen else model.two(x)

    parts = {name: nn.Linear(WIDTH, WIDTH) for name in ("router", "one", "two")}
    model, graph = toy(run, {"x": X}, **parts)
    used = {name.split(".")[0] for name in graph.used_parameters()}
    assert len(used & {"one", "two"}) == 1
    assert "router" in used
    assert torch.equal(graph.output, model(x=X, use_cache=False).logits)


def test_parameters_and_buffers_are_known_by_name() -> None:
    norm = nn.BatchNorm1d(WIDTH)
    _, graph = toy(lambda model, x: x + model.norm.weight + model.norm.running_mean, {"x": X}, norm=norm.eval())
    given = [a for step in graph.steps for a in step.arguments if isinstance(a, Tensor)]
    assert {graph.parameter(a) for a in given} - {None} == {"norm.weight"}
    assert {graph.buffer(a) for a in given} - {None} == {"norm.running_mean"}
    assert all(graph.maker(a) is None for a in given if graph.parameter(a) or graph.buffer(a))


def test_several_steps_taken_as_one_are_run_in_order_with_other_tensors() -> None:
    _, graph = toy(lambda model, x, y: (x * 2 + y).exp(), {"x": X, "y": X + 1})
    together = CompositeOperation.of(graph.steps[::-1])
    assert [step.number for step in together.steps] == sorted(step.number for step in graph.steps)
    assert together.made[0] is graph.steps[-1].made[0]
    place = next(p for p, value in enumerate(together.arguments) if torch.equal(value, X))
    assert torch.equal(together.again({place: 0 * X})[0], (X + 1).exp())
    assert torch.equal(together.again({})[0], graph.steps[-1].made[0])
