"""A model's head, taken off it: its own code behind the backbone, run for some tokens of the vocabulary at a time.

Logits of all tokens of a prompt, (tokens, vocabulary), can be larger than a block, and an unembedding that computes in
another dtype than it is stored in is there twice. Here the backbone is replaced by hidden states that it returned
before, and some rows of the unembedding are in place at a time. The model's own code makes of them what it makes of
all: it adds a bias, scales, caps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from weight_edit.runtime.compute_dtype import Change
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.spool import Spool

SLICE = 1 << 20
"""Numbers of the unembedding that are in place at a time."""

_TOLERANCE = 0.05
"""Share of the largest logit by which logits may differ that are the same but for rounding."""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A parameter behind the backbone.

    Attributes:
        module, leaf: where it belongs.
        names: its names in the model; several where it is tied.
        kept: its name in the spool.
        long: it has a row for every token of the vocabulary, kept in parts.
    """

    module: nn.Module
    leaf: str
    names: frozenset[str]
    kept: str
    long: bool


class Head:
    """The head of a model, with its weights in a spool.

    Attributes:
        width: the number of logits.
        parts: the tokens of the vocabulary, divided; each is one piece of the weights.
    """

    def __init__(self, model: Model, name: str, spool: Spool) -> None:
        """Take the head off a model, which is of no use afterwards: all weights are let go.

        Args:
            name: what the weights' names in the spool begin with.
            spool: where the weights go.
        """
        self.width, self._device = model.vocabulary, model.device
        count = max(1, SLICE // max(1, model.anatomy.d_model))
        self.parts = [slice(at, min(at + count, self.width)) for at in range(0, self.width, count)]
        self._unembedding, self._spool, self._causal = model.anatomy.unembedding, spool, model.model
        self._slots = _slots(model, name)
        with torch.no_grad():
            for slot in self._slots:
                self._keep(slot)
        _emptied(model.backbone)
        self._recorded = _recorded(model)

    def by_parts(self, hidden: Tensor, dtype: torch.dtype) -> bool:
        """Whether the logits of one part of the vocabulary do not depend on what else there is.

        They do where the model's code looks at all of them at once, or at some by their numbers.

        Args:
            hidden: (tokens, d_model), of a few tokens to try it on.
            dtype: of the weights.
        """
        if len(self.parts) < 2:
            return False
        ends = [self.weights(number, dtype) for number in (0, len(self.parts) - 1)]
        joined = zip(self._slots, zip(*ends, strict=True), strict=True)
        both = [torch.cat(pair) if slot.long else pair[0] for slot, pair in joined]
        try:
            apart = torch.cat([self.logits(hidden, weights) for weights in ends], dim=-1)
            together = self.logits(hidden, both)
        except (IndexError, RuntimeError, ValueError):
            return False
        if apart.shape != together.shape:
            return False
        gap = (apart - together).abs().nan_to_num(0.0).max()
        return bool(gap <= _TOLERANCE * together.nan_to_num(0.0, 0.0, 0.0).abs().max())

    def weights(
        self, part: int | None, dtype: torch.dtype, changes: Mapping[str, Change] | None = None
    ) -> list[Tensor]:
        """The weights for a part of the vocabulary, or for all of it, as `logits` takes them.

        Args:
            part: its number; None is all.
            dtype: what is computed in.
            changes: parameter -> what is made of its rows, converted.
        """
        return [self._weight(slot, part, dtype, changes or {}) for slot in self._slots]

    def logits(self, hidden: Tensor, weights: Sequence[Tensor], hooks: Sequence[Hook] = ()) -> Tensor:
        """The logits of hidden states, (tokens, width of the part) in their dtype, on the model's device.

        Args:
            hidden: what the backbone returned, (tokens, d_model).
            weights: from `weights`.
            hooks: those on the unembedding take part, the others are none of the head's.
        """
        for slot, value in zip(self._slots, weights, strict=True):
            slot.module._parameters[slot.leaf] = nn.Parameter(value, requires_grad=False)
        self._recorded.last_hidden_state = hidden[None].to(self._device)
        ids = torch.zeros((1, len(hidden)), dtype=torch.long, device=self._device)
        own = [hook for hook in hooks if hook.module == self._unembedding and hook.where != "parameter"]
        with torch.no_grad(), hooked(self._causal, own):
            found: Tensor = self._causal(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        return found

    def _keep(self, slot: _Slot) -> None:
        """Move a parameter into the spool."""
        parameter = slot.module._parameters[slot.leaf]
        slot.module._parameters[slot.leaf] = None
        if parameter is None or self._spool.has(slot.kept):
            return
        if not slot.long:
            self._spool.keep(slot.kept, 0, parameter.detach())
            return
        for number, part in enumerate(self.parts):
            if parameter.ndim == 1:
                rows = parameter[part]
            else:
                # An embedding looks up rows wherever they are, a slice reads all that lies on disk.
                rows = embedding(torch.arange(part.start, part.stop, device=parameter.device), parameter)
            self._spool.keep(slot.kept, number, rows)

    def _weight(self, slot: _Slot, part: int | None, dtype: torch.dtype, changes: Mapping[str, Change]) -> Tensor:
        numbers: Sequence[int] = [0] if not slot.long else range(len(self.parts)) if part is None else [part]
        pieces = [self._spool.get(slot.kept, number).to(self._device) for number in numbers]
        values = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if values.is_floating_point():
            values = values.to(dtype)
        for name in slot.names & changes.keys():
            values = changes[name](values)
        return values


def _slots(model: Model, name: str) -> list[_Slot]:
    """The parameters behind the backbone."""
    names: dict[int, set[str]] = {}
    for path, parameter in model.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(path)
    inside = {id(module) for module in model.backbone.modules()}
    return [
        _Slot(
            module=module,
            leaf=leaf,
            names=frozenset(names[id(parameter)]),
            kept=f"{name} {min(names[id(parameter)])}",
            long=parameter.shape[:1] == (model.vocabulary,),
        )
        for module in model.model.modules()
        if id(module) not in inside
        for leaf, parameter in module._parameters.items()
        if parameter is not None
    ]


def _emptied(backbone: nn.Module) -> None:
    """Let go a backbone's parameters, but not their shapes: its head may ask it for other things."""
    for module in backbone.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                nothing = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                module._parameters[leaf] = nn.Parameter(nothing, requires_grad=False)


def _recorded(model: Model) -> "_Output":
    """What a model's backbone returns from now on; it runs no more."""
    recorded = _Output()
    path = model.anatomy.blocks[0].module.split(".")
    around = [model.model.get_submodule(".".join(path[:count])) for count in range(1, len(path))]
    inside = {id(module) for module in model.backbone.modules()}
    for module in [model.backbone, *around]:
        # A model's code may call a part of the backbone past it.
        if id(module) in inside and not isinstance(module, nn.ModuleList):
            vars(module)["forward"] = lambda *_, **__: recorded
    return recorded


class _Output:
    """What a backbone returns, with nothing but the hidden states."""

    last_hidden_state: Tensor

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.last_hidden_state,))

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
