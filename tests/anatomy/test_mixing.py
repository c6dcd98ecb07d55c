"""Which parts of a block mix tokens: attention, convolutions and recurrences do, feed-forward parts do not."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import IDS, WIDTH, Decoder, Mixer, Mlp
from weight_edit.anatomy.blocks import block_calls
from weight_edit.anatomy.graph.recording import record
from weight_edit.anatomy.mixing import mixing_parts


class Convolution(nn.Module):
    """Over the last three tokens, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH, padding=2), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x.mT)[..., : x.shape[1]].mT)


class StateSpace(nn.Module):
    """A state that decays."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state, states = torch.zeros(x.shape[0], WIDTH), []
        for token in self.into(x).unbind(1):
            state = 0.7 * state + token
            states.append(state)
        return self.out(torch.stack(states, dim=1))


class Gated(nn.Module):
    """A product of two maps: it hides a change of sign, which is no reason to miss one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        return self.down(self.gate(hidden_states) * self.up(hidden_states)), None


class Experts(nn.Module):
    """One of two maps for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 2)
        self.experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(-1)
        given = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            given[chosen == number] = expert(x[chosen == number])
        return given


class Pair(nn.Module):
    """The two parts of a block, one of which is called by keyword and gives a tuple."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        for norm, part in ((self.norm1, self.first), (self.norm2, self.second)):
            given = part(hidden_states=norm(x)) if isinstance(part, Gated) else part(norm(x))
            x = x + (given[0] if isinstance(given, tuple) else given)
        return x


@pytest.mark.parametrize("mixer", [Mixer, Convolution, StateSpace])
@pytest.mark.parametrize("other", [Mlp, Gated, Experts])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_mixes_tokens(mixer: type[nn.Module], other: type[nn.Module], reverse: bool) -> None:
    parts = (other(), mixer()) if reverse else (mixer(), other())
    model = Decoder([Pair(*parts), Pair(*(other(), other()))])
    inputs = {"input_ids": IDS}
    graph = record(model, inputs)
    before = model(**inputs).logits
    found = mixing_parts(model, inputs, graph, block_calls(model, graph))
    assert found == {"blocks.0.second" if reverse else "blocks.0.first"}
    assert torch.equal(model(**inputs).logits, before), "no hook is left behind"
