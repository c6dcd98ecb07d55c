"""Hooks replace what they name, run in order and are detached whatever fails."""

import pytest
import torch
from torch import nn

from weight_edit.runtime.hooks import Hook, hooked


class Inner(nn.Module):
    def forward(self, hidden_states, other=None):
        return hidden_states * 2, "kept"


class Outer(nn.Module):
    def __init__(self, by_keyword):
        super().__init__()
        self.inner = Inner()
        self.by_keyword = by_keyword

    def forward(self, x):
        return self.inner(other=1, hidden_states=x) if self.by_keyword else self.inner(x)


def attached(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("by_keyword", [False, True])
def test_input_and_output_are_replaced_and_the_rest_of_a_tuple_is_kept(by_keyword):
    model = Outer(by_keyword)
    x = torch.ones(3)
    with hooked(model, [Hook("inner", "input", lambda t: t + 1), Hook("inner", "output", lambda t: t * 10)]):
        value, rest = model(x)
    assert torch.equal(value, torch.full((3,), 40.0))
    assert rest == "kept"
    assert torch.equal(model(x)[0], torch.full((3,), 2.0))


def test_hooks_on_one_place_run_in_order_and_inside_those_of_an_enclosing_block():
    model, order = Outer(False), []

    def note(name):
        def fn(t):
            order.append(name)
            return t

        return fn

    with hooked(model, [Hook("inner", "output", note("a")), Hook("inner", "output", note("b"))]):
        with hooked(model, [Hook("inner", "output", note("c"))]):
            model(torch.ones(1))
        model(torch.ones(1))
    assert order == ["a", "b", "c", "a", "b"]


def test_detached_when_the_body_fails():
    model = Outer(False)
    seen = []

    def body():
        with hooked(model, [Hook("inner", "output", lambda t: t)]):
            seen.append(attached(model))
            raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        body()
    assert [*seen, attached(model)] == [1, 0]


def test_detached_when_a_hook_fails():
    model = Outer(False)

    def fail(t):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hooked(model, [Hook("inner", "input", fail)]):
        model(torch.ones(1))
    assert attached(model) == 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [(Hook("nowhere", "input", abs), AttributeError), (Hook("inner", "side", abs), ValueError)],
)
def test_detached_when_a_later_hook_cannot_be_attached(bad, error):
    model = Outer(False)
    with pytest.raises(error), hooked(model, [Hook("inner", "output", lambda t: t), bad]):
        pass
    assert attached(model) == 0


def test_a_module_without_a_tensor_is_named():
    model = nn.Sequential(nn.Identity())
    with hooked(model, [Hook("0", "input", abs)]), pytest.raises(TypeError, match="0 was called without"):
        model("text")
    with hooked(model, [Hook("0", "output", abs)]), pytest.raises(TypeError, match="0 returned str"):
        model("text")
