"""Directions and concept cones by gradient descent on the model's outputs (RDO)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders._best_mean_difference import best_mean_difference
from weight_edit.directions.finders._own_texts import Said, padded, predictions, said
from weight_edit.directions.finders.random_control import random_rows
from weight_edit.directions.problem import Part, Problem
from weight_edit.directions.registry import finder
from weight_edit.directions.samples import Sample
from weight_edit.errors import UnsupportedError
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime.forward_pass import suited_threads
from weight_edit.runtime.gradients import beside_weights, slopes
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import Point, all_points, hook_at
from weight_edit.utils.progress import bar
from weight_edit.utils.settings import Section

PARTS = ("answer", "refuse", "retain")
"""The three losses: "answer", "refuse" and "retain".

Answering target prompts under ablation, refusing baseline prompts under addition, and the KL divergence on baseline
prompts under ablation.
"""


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses that directions are optimised for, on fixed texts.

    Attributes:
        model: the model.
        layer: at whose input a direction is added.
        length: of what is added.
        texts: for each of `PARTS`, prompts and what should be said to them.
    """

    model: Model
    layer: int
    length: float
    texts: dict[str, list[Said]]

    def of(self, part: str, rows: Sequence[int], directions: Tensor) -> Tensor:
        """One loss on some texts, a scalar on the CPU: the mean over their tokens.

        Args:
            part: one of `PARTS`.
            rows: which of the part's texts.
            directions: the unit direction that is used for each of them, (rows, d_model) float32.
        """
        texts = [self.texts[part][row] for row in rows]
        total = torch.zeros(())
        with suited_threads(self.model):
            for batch in padded(self.model, texts):
                used = directions[list(batch.rows)]
                hooks = self._addition(used) if part == "refuse" else ablating(self.model, used)
                base = None
                if part == "retain":
                    with torch.no_grad():
                        base = predictions(self.model, batch, texts).logits.log_softmax(dim=-1)
                with hooked(self.model.model, hooks):
                    found = predictions(self.model, batch, texts)
                if base is None:
                    loss = cross_entropy(found.logits, found.wanted, reduction="sum")
                else:
                    loss = (base.exp() * (base - found.logits.log_softmax(dim=-1))).sum()
                total = total + loss.cpu()
        return total / sum(len(text.text) for text in texts)

    def _addition(self, directions: Tensor) -> list[Hook]:
        def add(x: Tensor) -> Tensor:
            return x + (self.length * spread(directions, x)).to(x.dtype)

        return [hook_at(self.model, Point("resid_pre", self.layer), add)]


def ablating(model: Model, directions: Tensor) -> list[Hook]:
    """Hooks that remove from each prompt's stream its own unit direction (prompts, d_model).

    They are at points of the stream, which every family has, so that they are differentiable in the directions whatever
    norms lie between a writer and the stream; readers see what they would see if all that is written lacked them.
    """

    def remove(x: Tensor) -> Tensor:
        u = spread(directions, x)
        exact = x.float()
        return (exact - (exact * u).sum(dim=-1, keepdim=True) * u).to(x.dtype)

    last = model.anatomy.n_layers - 1
    # A block's output is the next one's input.
    points = [point for point in all_points(model) if point.kind != "resid_post" or point.layer == last]
    return [hook_at(model, point, remove) for point in points]


def spread(directions: Tensor, x: Tensor) -> Tensor:
    """One direction per prompt, in a shape that broadcasts over x (prompts, ..., d_model)."""
    return directions.to(x.device).view(len(x), *[1] * (x.ndim - 2), x.shape[-1])


class GradientOptions(Section):
    """Settings of the search; the defaults are the paper's, but for the number of steps.

    Attributes:
        steps: of the optimiser (AdamW).
        batch: texts of each kind in a step.
        rate: learning rate, on unit directions.
        dimension: of the cone; 1 is a single direction.
        answer, refuse, retain: weights of the three losses.
        tokens: texts are cut to so many.
        layer: at whose input a direction is added, and where the search begins; that of the best mean difference when
            None.
        start: "mean-difference" there, or "random".
    """

    steps: Annotated[int, Field(ge=1)] = 50
    batch: Annotated[int, Field(ge=1)] = 16
    rate: Annotated[float, Field(gt=0)] = 0.01
    dimension: Annotated[int, Field(ge=1, le=5)] = 1
    answer: Annotated[float, Field(ge=0)] = 1.0
    refuse: Annotated[float, Field(ge=0)] = 0.2
    retain: Annotated[float, Field(ge=0)] = 1.0
    tokens: Annotated[int, Field(ge=1)] = 30
    layer: Annotated[int, Field(ge=0)] | None = None
    start: Literal["mean-difference", "random"] = "mean-difference"


@finder("gradient", paper="2502.17420", aliases=("rdo",), gradients=True)
def gradient(problem: Problem, options: GradientOptions) -> list[Candidate]:
    """A unit direction or concept cone by gradient search on the model's own texts.

    Minimises `answer CE(ablated, answers to target prompts) + refuse CE(added, refusals of baseline prompts) + retain
    KL(base || ablated, what is said to baseline prompts)`, each a mean over tokens. The texts are the model's own, made
    greedily: answers under ablation of the best mean difference, refusals and what is retained without an edit;
    refusals were said to target prompts and are wanted of baseline prompts. Ablation is at every point of the stream
    (which is what `bake` writes, but for families with a norm between writer and stream, where weights cannot say it
    without changing more), addition at the input of one layer with the mean difference's length.

    A cone of dimension n is n orthonormal rows (Gram-Schmidt) such that every unit combination of them with weights
    that are not negative does what a direction should. In each step half of the texts use a row, in turn, and half a
    combination drawn for them, so that a cone costs what a direction costs.

    One candidate at the place of the best mean difference: the rows, and to add, the first with the mean difference's
    length. Facts: the losses on validation prompts before and after, and the cosine of the first row with the start.

    Raises:
        UsageError: a layer that the model has not, equal means everywhere, a prompt too long, or memory runs out.
        UnsupportedError: the model's code lets no gradients through.
    """
    start = best_mean_difference(problem, options.layer)
    assert start.vector is not None
    assert start.layer is not None
    length = float(start.vector.norm())
    unit = start.vector / length
    drawn = random_rows(options.dimension, problem.width, problem.seed)
    if options.start == "mean-difference":
        drawn = torch.cat([unit[None], drawn[1:]])
    train, held = (
        Losses(problem.model, start.layer, length, texts_of(problem, start, options, part))
        for part in ("train", "validation")
    )
    with beside_weights(problem.model):
        before = evaluated(held, orthonormalised(drawn), options)
        rows = searched(train, drawn, options, problem.seed)
        after = evaluated(held, rows, options)
    found = rows.double()
    facts = {"before": before, "after": after, "cosine_with_start": float(found[0] @ unit)}
    return [Candidate(position=start.position, layer=start.layer, rows=found, vector=found[0] * length, facts=facts)]


def texts_of(problem: Problem, start: Candidate, options: GradientOptions, part: Part) -> dict[str, list[Said]]:
    """The model's own texts for each loss."""

    def prompts(sample: Sample) -> list[list[int]]:
        return sample.train if part == "train" else sample.validation

    model, size = problem.model, problem.batch_size
    targets = [ids for sample in problem.targets for ids in prompts(sample)]
    baseline = prompts(problem.baseline)
    ablated = ablation_hooks(model, start.rows)
    refused = said(model, targets, tokens=options.tokens, hooks=[], what="refusals", batch_size=size)
    retained = said(model, baseline, tokens=options.tokens, hooks=[], what="answers", batch_size=size)
    return {
        "answer": said(
            model, targets, tokens=options.tokens, hooks=ablated, what="answers under ablation", batch_size=size
        ),
        "refuse": [Said(text.prompt, refused[index % len(refused)].text) for index, text in enumerate(retained)],
        "retain": retained,
    }


def searched(losses: Losses, start: Tensor, options: GradientOptions, seed: int) -> Tensor:
    """The optimised rows, orthonormal, (n, d_model) float32.

    Args:
        start: where it begins, (n, d_model), independent rows.

    Raises:
        UnsupportedError: the model's code lets no gradients through.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = orthonormalised(start).detach().requires_grad_()
    optimiser = torch.optim.AdamW([rows], lr=options.rate, weight_decay=0.0)
    weights = weights_of(options)
    turns = {part: batches_of(len(losses.texts[part]), options.batch, generator) for part in PARTS}
    with bar("gradient search", options.steps) as progress, torch.enable_grad():
        for _ in range(options.steps):
            optimiser.zero_grad()
            for part in PARTS:
                chosen = next(turns[part])
                mixed = mixtures(len(chosen), len(start), generator)
                if weights[part] > 0:
                    # One part after the other, so that only one graph is kept at a time.
                    loss = losses.of(part, chosen, mixed @ orthonormalised(rows))
                    found = slopes(weights[part] * loss, [rows])
                    if found is None or found[0] is None:
                        raise UnsupportedError(
                            f"method gradient: {losses.model.anatomy.architecture} lets no gradients through from "
                            "what it says to the stream; use another method"
                        )
                    rows.grad = found[0] if rows.grad is None else rows.grad + found[0]
            optimiser.step()
            with torch.no_grad():
                rows.copy_(orthonormalised(rows))
            progress.advance()
    return rows.detach()


def evaluated(losses: Losses, rows: Tensor, options: GradientOptions) -> dict[str, float]:
    """The mean of each loss over all texts, and their weighted sum.

    Each text uses one of the rows, in turn.
    """
    found: dict[str, float] = {}
    with torch.no_grad():
        for part in PARTS:
            count = len(losses.texts[part])
            total = 0.0
            for first in range(0, count, options.batch):
                chosen = list(range(first, min(first + options.batch, count)))
                used = torch.stack([rows[index % len(rows)] for index in chosen])
                total += float(losses.of(part, chosen, used)) * len(chosen)
            found[part] = total / count
    weights = weights_of(options)
    return {**found, "total": sum(weights[part] * found[part] for part in PARTS)}


def weights_of(options: GradientOptions) -> dict[str, float]:
    """The weight of each loss."""
    return {"answer": options.answer, "refuse": options.refuse, "retain": options.retain}


def orthonormalised(rows: Tensor) -> Tensor:
    """Rows orthonormalised by Gram-Schmidt, (n, d_model) float32, differentiable.

    The rows must be independent; the first keeps its direction.
    """
    found: list[Tensor] = []
    for row in rows.float():
        for other in found:
            row = row - (row @ other) * other
        found.append(row / row.norm())
    return torch.stack(found)


def mixtures(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Weights (count, dimension) float32, none negative, of unit combinations of the rows.

    The first half of them are single rows in turn, the others spread evenly over the cone.
    """
    single = torch.eye(dimension)[torch.arange(count) % dimension]
    if dimension == 1:
        return single
    drawn = torch.randn(count, dimension, generator=generator).abs()
    drawn = drawn / drawn.norm(dim=-1, keepdim=True)
    first = (torch.arange(count) < (count + 1) // 2)[:, None]
    return torch.where(first, single, drawn)


def batches_of(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless batches of `size` indices below `count`; each index comes once per pass."""
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, count):
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]
