"""The input of a finder: a model, prompts that do and do not show a behaviour, activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from weight_edit.directions.samples import Sample
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.activations import mean_residuals, residuals_under
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_stream
from weight_edit.runtime.points import Point
from weight_edit.runtime.variants import PLAIN, Variant

Part = Literal["train", "validation"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """The input of a finder: a model, samples of prompts, and their activations.

    Activations are those at the inputs of blocks, (prompts, positions, layers, d_model) float32 on the CPU; each sample
    is run once, whoever asks.

    Attributes:
        model: the model.
        targets: what shows the behaviour: one sample as a rule, several for several kinds of it.
        baseline: what does not.
        protected: samples of what an edit should leave alone, if any were given.
        positions: from a prompt's end, negative; None stands for the mean over all of a prompt's tokens.
        layers: whose inputs are looked at: all of the model's.
        allowed: how many of them, from the first, may be chosen.
        tokens: ids of the refusal tokens; empty where the search does without.
        seed: of whatever is drawn.
        batch_size: prompts in a forward pass, at most; None is as many as memory allows.
        warn: takes sentences that the user should read.
        format: how prompts became tokens; the model's own when None.
        known: activations of single prompts, (positions, layers, d_model) float32, that were read before along with
            something else; each is taken out of here when it is asked for.
    """

    model: Model
    targets: tuple[Sample, ...]
    baseline: Sample
    protected: tuple[Sample, ...]
    positions: tuple[int | None, ...]
    layers: tuple[int, ...]
    allowed: int
    tokens: tuple[int, ...]
    seed: int
    batch_size: int | None
    warn: Callable[[str], None]
    format: ChatFormat | None = None
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    _read: dict[tuple[int, Part], Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def width(self) -> int:
        """d_model."""
        return self.model.anatomy.d_model

    @property
    def places(self) -> list[tuple[int, int]]:
        """All (position, layer) index pairs, positions first: the order of candidates."""
        return [(p, layer) for p in range(len(self.positions)) for layer in range(len(self.layers))]

    def target(self, part: Part = "train") -> Tensor:
        """Activations of all target samples together, (prompts, positions, layers, d_model)."""
        return torch.cat([self.of(sample, part) for sample in self.targets])

    def of(self, sample: Sample, part: Part = "train") -> Tensor:
        """Activations of one sample, (prompts, positions, layers, d_model); computed once.

        Raises:
            UsageError: a prompt is shorter than the positions reach back, memory runs out, or the stream is not finite.
        """
        key = (id(sample), part)
        if key not in self._read:
            self._read[key] = self.activations(sample.train if part == "train" else sample.validation, sample.role)
        return self._read[key]

    def activations(self, prompts: Sequence[Sequence[int]], name: str | None = None) -> Tensor:
        """Activations of other prompts, given as token ids, at the same places; not cached."""
        if prompts and all(tuple(ids) in self.known for ids in prompts):
            found = torch.stack([self.known[tuple(ids)] for ids in prompts])
            for ids in prompts:
                self.known.pop(tuple(ids), None)
        else:
            found = stream_at(self.model, prompts, self.layers, self.positions, batch_size=self.batch_size, name=name)
        check_stream(self.model, prompts, found)
        return found

    def encode(self, prompts: PromptSet) -> list[list[int]]:
        """Token ids of further prompts, in the same chat format.

        Raises:
            UsageError: the tokenizer has no chat template.
        """
        return [self._chat.encode(prompt) for prompt in prompts.prompts]

    def opened(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The prompts with the answer's opening, so that the next token tells refusals from answers.

        Raises:
            UsageError: the tokenizer has no chat template.
        """
        return [[*prompt, *self._chat.opening] for prompt in prompts]

    @property
    def _chat(self) -> ChatFormat:
        return ChatFormat(self.model.tokenizer) if self.format is None else self.format

    def check_enough(self, what: str) -> None:
        """Warn of fewer training prompts than d_model: any two classes are separable then."""
        count = sum(len(sample.train) for sample in self.targets) + len(self.baseline.train)
        if count < self.width:
            self.warn(
                f"{what}: {count} training prompts are fewer than the stream is wide ({self.width}), so that chance "
                "alone separates them in many directions; give more, and trust the held-out figures"
            )


def stream_at(
    model: Model,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    positions: Sequence[int | None],
    *,
    batch_size: int | None = None,
    name: str | None = None,
) -> Tensor:
    """The stream at the inputs of layers, on the CPU.

    Shape (prompts, positions, layers, d_model), float32.

    Args:
        positions: negative, from a prompt's end; None for the mean over all of its tokens.
        name: of the prompts, for the progress bar; None shows none.
    """
    return streams_under(model, (PLAIN,), prompts, layers, positions, batch_size=batch_size, name=name)[0]


def streams_under(
    model: Model,
    variants: Sequence[Variant],
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    positions: Sequence[int | None],
    *,
    batch_size: int | None = None,
    name: str | None = None,
) -> Tensor:
    """The stream as `stream_at` has it, under each variant: (variants, prompts, positions, layers, d_model) float32."""
    points = [Point("resid_pre", layer) for layer in layers]
    told = None if name is None else f"{name} activations"
    plain = [position for position in positions if position is not None]
    columns: dict[int | None, Tensor] = {}
    if plain:
        found = residuals_under(model, variants, prompts, points, plain, batch_size=batch_size, description=told)
        columns |= {position: found[:, :, index] for index, position in enumerate(plain)}
    if None in positions:
        means = []
        for variant in variants:
            with hooked(model.model, variant.hooks):
                means.append(mean_residuals(model, prompts, points, batch_size=batch_size, description=told))
        columns[None] = torch.stack(means)
    return torch.stack([columns[position] for position in positions], dim=2)
