"""Gradient descent on the strengths of all writers and on the directions, along a ladder of prices of damage.

Minimised is `mean softplus(ratio) + answers * mean(-log P(answer) per token) + price * KL / unit`, the ratios and the
KL of a `Scorer`, with `unit` the damage of the plain full ablation, so that a price means the same of every model.
Where there are over-refused prompts, the first two terms are added once more for them. Each price starts from where the
last one ended. The second term is what makes answers right: a ratio is content as soon as a refusal is less likely
still.

A text that is made unlikely is not a refusal that is gone: optimised for fixed refusals, an edit learns to refuse in
other words. So refusals are generated anew every few steps, and join the texts with the answers they stand against.

Everything follows from the arguments: batches are drawn by the seed and the number of the step alone, and what is kept
between two steps is whole, so that a descent that was interrupted goes on to the same bits.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from weight_edit.edits.packed_rows import packed, unpacked_tensor
from weight_edit.errors import UsageError
from weight_edit.runtime.gradients import beside_weights
from weight_edit.runtime.processes import agreed
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.point import Point
from weight_edit.search.score import Score, Scorer
from weight_edit.search.strengths import Strengths
from weight_edit.search.texts import Choice, Texts
from weight_edit.search.trainable import TrainableEdit
from weight_edit.utils.progress import bar

KEPT_EVERY = 5
"""Steps after which the state is kept."""

BETAS = (0.8, 0.95)
"""Of Adam: a short memory, since prices rise and refusals join. With (.9, .999) a ladder of 40 steps ends half-way."""

EDGE = 0.01
"""The share of the largest strength that a strength keeps from both bounds at the start, where the slope vanishes."""

SMALLEST_UNIT = 1e-6
"""Nats per token: less than this is no unit of damage, but rounding."""

Refusals = Callable[[Point], Sequence[Choice]]
"""Generates under a point: the training prompts that it still refuses, with the new refusals and their answers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PricedPoint:
    """Where the descent arrived at one price of damage.

    Attributes:
        price: in units of one over the damage of the plain full ablation.
        point: the edit.
        score: on the scorer's own texts, without those that joined.
    """

    price: float
    point: Point
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {"price": self.price, "point": self.point.to_dict(), "score": self.score.to_dict()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "PricedPoint":
        """What `to_dict` was called on."""
        return cls(price=entry["price"], point=Point.from_dict(entry["point"]), score=Score.from_dict(entry["score"]))


def descend(
    scorer: Scorer,
    start: Point,
    options: DescentOptions,
    *,
    unit: float | None = None,
    refusals: Refusals | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
    state: Mapping[str, Any] | None = None,
    description: str | None = "descent",
) -> list[PricedPoint]:
    """The points that a descent reaches, one for each price.

    Args:
        scorer: of the training texts.
        start: where it begins.
        unit: the damage of the plain full ablation, nats per token; None measures that of the start's directions.
        refusals: generates anew; None leaves the texts as they are.
        keep: is given the state every few steps, JSON values.
        state: what an earlier attempt with the same arguments kept, to go on from.
        description: names the progress bar; None draws none.

    Raises:
        UnsupportedError: the model lets no gradients through, is on disk, or the start keeps norms.
        UsageError: no refused prompts, more directions at the start than are to be optimised, or memory runs out.
    """
    descent = _Descent(scorer, start, options, refusals)
    if state is None:
        descent.begin(unit)
    else:
        descent.restore(state)
    progress = bar(description, descent.total, "steps", done=descent.step) if description else nullcontext()
    with beside_weights(scorer.model), progress as drawn:
        while descent.step < descent.total:
            descent.advance()
            if drawn is not None:
                drawn.advance()
            if keep is not None and (descent.step % KEPT_EVERY == 0 or descent.step == descent.total):
                keep(descent.state())
    return descent.found


class _Descent:
    """A descent under way."""

    def __init__(self, scorer: Scorer, start: Point, options: DescentOptions, refusals: Refusals | None) -> None:
        if start.keep_norms:
            raise UsageError("a descent starts from an edit that does not keep norms; pass one with `keep_norms=False`")
        if not scorer.texts.refused:
            raise UsageError("a descent needs prompts that the model refuses; the training texts have none")
        self.options, self.total = options, options.steps * len(options.prices)
        self.found: list[PricedPoint] = []
        self.step = 0
        self._first, self._scorer, self._refusals = scorer, scorer, refusals
        self._start = start
        self._unit = 1.0
        self._joined: list[Choice] = []
        self._refused: int | None = None
        self._changed = 0
        rows = _rows(start, options)
        share = torch.from_numpy(start.strengths.vector) / options.largest
        self._rows = rows.requires_grad_(options.directions > 0)
        self._logits = torch.logit(share.clamp(EDGE, 1 - EDGE)).float()
        self._edit = TrainableEdit(
            scorer.model, self._rows, self._strengths().requires_grad_(), embeddings=start.embeddings
        )
        groups = [{"params": [self._logits], "lr": options.rate}]
        if options.directions:
            # Adam moves every entry by about its rate, hence a unit row by the rate times the root of their number.
            groups.append({"params": [self._rows], "lr": options.direction_rate / rows.shape[1] ** 0.5})
        self._optimiser = torch.optim.Adam(groups, betas=BETAS)

    def begin(self, unit: float | None) -> None:
        """Settle the unit of damage."""
        if unit is None:
            flat = replace(self._start, strengths=Strengths.flat(self._start.strengths.n_layers))
            (full,) = self._first.scores([flat], refused=[], over_refused=[])
            unit = full.damage
        self._unit = max(unit, SMALLEST_UNIT)

    def advance(self) -> None:
        """One step; at the end of a price also its point."""
        if self._refusals is not None and self.step % self.options.refresh == 0:
            self._refresh(self._refusals)
        price = self.options.prices[self.step // self.options.steps]
        texts = self._scorer.texts
        with torch.no_grad():
            self._edit.strengths.copy_(self._strengths())
        slope = self._scorer.gradient(
            self._edit,
            price / self._unit,
            refused=self._drawn("refused", len(texts.refused)),
            ordinary=self._drawn("ordinary", len(texts.ordinary)),
            over_refused=self._drawn("over-refused", len(texts.over_refused)),
            answer_weight=self.options.answers,
        )
        # By the chain rule from strengths to their logits, s = largest * sigmoid(x).
        share = torch.sigmoid(self._logits)
        self._logits.grad = slope.strengths * self.options.largest * share * (1 - share)
        self._rows.grad = slope.rows
        self._optimiser.step()
        with torch.no_grad():
            # Several machines may differ in the last bits, and what they ask next must not.
            rows, logits = agreed((self._rows.detach(), self._logits), "a step of the descent")
            self._rows.copy_(rows)
            self._logits.copy_(logits)
            self._edit.strengths.copy_(self._strengths())
        self.step += 1
        if self.step % self.options.steps == 0:
            point = self._point()
            (score,) = self._first.scores([point])
            self.found.append(PricedPoint(price=price, point=point, score=score))

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, JSON values."""
        moments = [
            {name: packed(self._optimiser.state[each][name]) for name in ("exp_avg", "exp_avg_sq")}
            for each in self._optimised
        ]
        return {
            "step": self.step,
            "rows": packed(self._rows.detach()),
            "logits": packed(self._logits),
            "moments": moments,
            "unit": self._unit,
            "joined": Texts(refused=tuple(self._joined), ordinary=()).to_dict(),
            "refused": self._refused,
            "changed": self._changed,
            "found": [each.to_dict() for each in self.found],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a kept state."""
        self.step, self._unit = state["step"], state["unit"]
        self._refused, self._changed = state["refused"], state["changed"]
        self.found = [PricedPoint.from_dict(each) for each in state["found"]]
        with torch.no_grad():
            self._rows.copy_(torch.from_numpy(unpacked_tensor(state["rows"])))
            self._logits.copy_(torch.from_numpy(unpacked_tensor(state["logits"])))
            self._edit.strengths.copy_(self._strengths())
        for each, moments in zip(self._optimised, state["moments"], strict=True):
            read = {name: torch.from_numpy(unpacked_tensor(entry)) for name, entry in moments.items()}
            self._optimiser.state[each] = {"step": torch.tensor(float(self.step)), **read}
        self._join(list(Texts.from_dict(state["joined"]).refused))

    @property
    def _optimised(self) -> list[Tensor]:
        return [self._logits, *([self._rows] if self.options.directions else [])]

    def _strengths(self) -> Tensor:
        return self.options.largest * torch.sigmoid(self._logits)

    def _point(self) -> Point:
        facts = {
            "price": self.options.prices[(self.step - 1) // self.options.steps],
            "steps": self.step,
            "joined": len(self._joined),
            "refused": self._refused,
            "start": self._start.digest,
        }
        return self._edit.point("descent", facts)

    def _refresh(self, refusals: Refusals) -> None:
        """Let what the present edit still says in refusal join the texts."""
        generated = refusals(self._edit.point())
        self._refused = len(generated)
        tokens = self._first.tokens
        there = {(c.prompt, c.refusal[:tokens]) for c in (*self._first.texts.refused, *self._joined)}
        new = [choice for choice in generated if (choice.prompt, choice.refusal[:tokens]) not in there]
        if new:
            self._join([*self._joined, *new])
            self._changed = self.step

    def _join(self, choices: list[Choice]) -> None:
        self._joined = choices[max(0, len(choices) - self.options.joined) :]
        self._scorer = self._first.with_refused(self._joined)

    def _drawn(self, kind: str, size: int) -> list[int]:
        """The numbers of this step's texts: every text comes once before one comes again, in an order of the seed's."""
        if size <= self.options.batch:
            return list(range(size))
        # Where texts have joined, drawing begins anew, so that none is missed.
        first = (self.step - self._changed) * self.options.batch
        passes, skipped = divmod(first, size)
        numbers = self._endless(f"{self.options.seed}/{kind}/{self._changed}", size, passes)
        return list(islice(numbers, skipped, skipped + self.options.batch))

    def _endless(self, seed: str, size: int, passes: int) -> Iterator[int]:
        for number in count(passes):
            yield from random.Random(f"{seed}/{number}").sample(range(size), size)


def _rows(start: Point, options: DescentOptions) -> Tensor:
    """The directions that a descent begins with, (k, d_model) float32: the start's, and random ones beside them.

    Raises:
        UsageError: the start has more than there are to be.
    """
    given = torch.from_numpy(start.rows).float()
    if not options.directions:
        return given.clone()
    if len(given) > options.directions:
        raise UsageError(
            f"`directions={options.directions}`: the start has {len(given)}; optimise at least as many, or 0 for none",
            option="directions",
        )
    generator = torch.Generator().manual_seed(options.seed)
    drawn = torch.randn(options.directions - len(given), given.shape[1], generator=generator)
    # Of length 1 in expectation; they are orthonormalised wherever they are used.
    return torch.cat([given, drawn / given.shape[1] ** 0.5])
