"""The cheap score of an edit: how likely the model finds texts that it said before; nothing is generated.

Refusal is read off two continuations of each refused prompt, the base's own refusal and an answer:
`ratio = log P(refusal) - log P(answer)` over the first tokens of each, so that no list of words and no language is
assumed. Damage is KL(base || edited) over the first tokens of the base's own answers to ordinary prompts. Both are
smooth, and differentiable in strengths and directions.

The score ranks edits; it is no rate of refusal, and an edit that is optimised for it can refuse in other words.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from weight_edit.errors import UnsupportedError
from weight_edit.evaluation.kl import kl_from
from weight_edit.runtime.batching import attempt, grouped, padded, too_long
from weight_edit.runtime.continuations import Branch, ReadPrompts, continuations_under, read_before, text_logprobs
from weight_edit.runtime.forward import answers_under, check_lengths, token_logprobs
from weight_edit.runtime.forward_pass import as_pass, last_logits, suited_threads
from weight_edit.runtime.gradients import slopes
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import differentiated_at_once
from weight_edit.runtime.padding import hides_padding
from weight_edit.runtime.passes import check_tokens
from weight_edit.runtime.variants import Variant, under
from weight_edit.search.point import Point
from weight_edit.search.texts import Choice, Texts
from weight_edit.search.trainable import TrainableEdit
from weight_edit.utils.arrays import Floats

TOKENS = 12
"""The first tokens of each continuation that are read."""

SKETCHED = 1
"""The first tokens of each continuation that a sketch reads; `benchmarks/search_trial.py` tells what more are worth.

A refusal and an answer differ in their first token, see `Choice.of`.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """The cheap score of an edit, prompt by prompt, float64.

    Attributes:
        ratios: of refused prompts, (prompts,), log P(refusal) - log P(answer), in nats.
        kl: of ordinary prompts, (prompts,), nats per token.
        over_ratios: as `ratios`, of harmless prompts that are refused; empty where none are asked.
    """

    ratios: Floats
    kl: Floats
    over_ratios: Floats

    def __repr__(self) -> str:
        over = "" if self.over_refusal is None else f", over-refusal {self.over_refusal:.3f}"
        return f"Score(refusal {self.refusal:.3f}, damage {self.damage:.4f}{over})"

    @property
    def refusal(self) -> float:
        """The mean probability of the refusal among the two continuations."""
        return float(preferred(self.ratios).mean())

    @property
    def damage(self) -> float:
        """The mean KL divergence from the base, nats per token."""
        return float(self.kl.mean())

    @property
    def over_refusal(self) -> float | None:
        """`refusal` of the harmless prompts that are refused; None where none were asked."""
        return float(preferred(self.over_ratios).mean()) if self.over_ratios.size else None

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers; where an edit breaks the model they are not."""
        return all(bool(np.isfinite(each).all()) for each in (self.ratios, self.kl, self.over_ratios))

    @property
    def objectives(self) -> tuple[float, ...]:
        """What is to be small: refusal, damage, and over-refusal where it was asked."""
        over = self.over_refusal
        return (self.refusal, self.damage, *(() if over is None else (over,)))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them."""
        return {"ratios": self.ratios.tolist(), "kl": self.kl.tolist(), "over_ratios": self.over_ratios.tolist()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Score":
        """The score that `to_dict` gave."""
        return cls(**{name: np.array(entry[name], dtype=np.float64) for name in ("ratios", "kl", "over_ratios")})


@dataclass(frozen=True, kw_only=True, eq=False)
class Slope:
    """The loss of an edit on some texts, and its gradient.

    Attributes:
        loss: mean softplus(ratio) + price * mean KL + over_price * mean softplus(over-ratio), and where asked the
            answers' mean -log P per token.
        refusal, damage: as of a `Score`, on the same texts.
        rows: gradient in the directions, (k, d_model); None where they need none.
        strengths: gradient in the strengths, (2 n_layers + 1,).
    """

    loss: float
    refusal: float
    damage: float
    rows: Tensor | None
    strengths: Tensor


def preferred(ratios: Floats) -> Floats:
    """The probability of the first of two texts with this log ratio, if one of them is said."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * ratios)))


class Scorer:
    """What scores edits of a model on fixed texts.

    Args:
        model: the model, without hooks.
        texts: what it said.
        tokens: of each continuation that are read, the first ones.
        batch_size: rows at a time, at most; None is as many as memory allows.
    """

    def __init__(self, model: Model, texts: Texts, *, tokens: int = TOKENS, batch_size: int | None = None) -> None:
        self.model, self.texts, self.tokens, self._batch_size = model, texts, tokens, batch_size
        self._before: ReadPrompts | None = None
        # Logits are kept as the model computes them: of 64 answers and a vocabulary of 152k they are 230 MB.
        self._base: list[Tensor] = []
        if texts.ordinary:
            prompts, answers = self._kept(range(len(texts.ordinary)))
            (self._base,) = answers_under(
                model, prompts, answers, lambda _, logits: logits.clone(), batch_size=batch_size, description=None
            )

    def scores(
        self,
        points: Sequence[Point],
        *,
        refused: Sequence[int] | None = None,
        ordinary: Sequence[int] | None = None,
        over_refused: Sequence[int] | None = None,
        description: str | None = None,
    ) -> list[Score]:
        """The scores of several edits, in one request to the model.

        Args:
            refused, ordinary, over_refused: the numbers of the prompts that are asked; all when None.
            description: names the progress bar; None draws none.
        """
        chosen = self._numbers(refused, ordinary, over_refused)
        choices = [self.texts.refused[row] for row in chosen[0]] + [self.texts.over_refused[row] for row in chosen[2]]
        prompts, answers = self._kept(chosen[1])
        asked = [*(list(choice.prompt) for choice in choices), *prompts]
        said = [*map(self._both, choices), *([answer] for answer in answers)]
        count = len(choices)

        def read(branches: Sequence[Branch], logits: Tensor) -> list[float]:
            texts = [said[branch.prompt][branch.continuation] for branch in branches]
            found = text_logprobs(logits, branches, texts).tolist()
            for row, branch in enumerate(branches):
                if branch.prompt >= count:
                    base = self._base[chosen[1][branch.prompt - count]].to(logits.device)
                    found[row] = float(divergence(base, logits[row, branch.columns]).mean())
            return found

        found = continuations_under(
            self.model,
            asked,
            said,
            read,
            variants=[point.variant(self.model) for point in points],
            before=self._before,
            batch_size=self._batch_size,
            description=description,
        )
        scores = []
        for each in found:
            ratios = np.array([first - second for first, second in each[:count]], dtype=np.float64)
            kl = np.array([value for (value,) in each[count:]], dtype=np.float64)
            cut = len(chosen[0])
            scores.append(Score(ratios=ratios[:cut], kl=kl, over_ratios=ratios[cut:]))
        return scores

    def sketch(self, tokens: int = SKETCHED) -> "Scorer":
        """A scorer of the same texts at a fraction of the cost, whose scores rank alike but are others.

        Prompts are read once, under no edit, and edits act from the last tokens on that all prompts have in common,
        those of the template; fewer tokens of each text are read. Where a model's cache does not allow that, or it
        lies on disk, prompts are read under each edit as ever.

        Args:
            tokens: of each continuation that are read.
        """
        made = copy(self)
        made.tokens = min(tokens, self.tokens)
        made._base = [logits[:tokens] for logits in self._base]
        ordinary = [each.prompt for each in self.texts.ordinary]
        prompts = [*(each.prompt for each in (*self.texts.refused, *self.texts.over_refused)), *ordinary]
        # Refused prompts may end with what both of their texts begin with.
        own = min(_common_end(ordinary), min(map(len, prompts), default=2) - 1)
        made._before = read_before(self.model, prompts, own=max(1, own), batch_size=self._batch_size)
        return made

    def with_refused(self, choices: Sequence[Choice]) -> "Scorer":
        """The same scorer with more refused prompts behind its own; the base is not asked again."""
        more = copy(self)
        more.texts = replace(self.texts, refused=(*self.texts.refused, *choices))
        return more

    def gradient(
        self,
        edit: TrainableEdit,
        price: float,
        *,
        refused: Sequence[int] | None = None,
        ordinary: Sequence[int] | None = None,
        over_refused: Sequence[int] | None = None,
        over_price: float = 1.0,
        answer_weight: float = 0.0,
    ) -> Slope:
        """The loss of an edit and its gradient, by one forward and one backward pass over the texts.

        Args:
            price: of a nat per token of damage.
            refused, ordinary, over_refused: as in `scores`.
            over_price: of harmless prompts' refusals, where there are any.
            answer_weight: of the answers' own likelihood: with each ratio, so many times its answer's mean of -log P
                per token is added.

        Raises:
            UnsupportedError: the model's code lets no gradients through.
            UsageError: memory runs out with the texts of a single prompt.
        """
        chosen = self._numbers(refused, ordinary, over_refused)
        items = [
            *(("refused", row, 1.0 / len(chosen[0])) for row in chosen[0]),
            *(("over_refused", row, over_price / len(chosen[2])) for row in chosen[2]),
            *(("ordinary", row, price / len(chosen[1])) for row in chosen[1]),
        ]
        most, at = self._at_once(), 0
        total = _Sums(edit)
        while at < len(items):
            found = attempt(partial(self._part, edit, items[at : at + most], answer_weight))
            if found is None:
                if most == 1:
                    raise too_long(max(map(len, self._sequences(items[at : at + 1])[0])))
                most //= 2
                continue
            total.add(found[0])
            at += most
        return total.slope(len(chosen[0]), len(chosen[1]))

    def _part(self, edit: TrainableEdit, items: "Sequence[_Item]", answer_weight: float) -> "_Part":
        """The loss of some prompts, whose two continuations go through the model together."""
        sequences, counts = self._sequences(items)
        variant = Variant(edit.hooks)
        unpadded = not hides_padding(self.model, sequences)
        wanted = [tensor for tensor in (edit.rows, edit.strengths) if tensor.requires_grad]
        losses: list[Tensor] = []
        refusal, damage = 0.0, 0.0
        with suited_threads(self.model), torch.enable_grad(), under(self.model, [variant]):
            edit.begin()
            logits: dict[int, Tensor] = {}
            for rows in grouped(sequences, len(sequences), unpadded=unpadded):
                batch = replace(padded(sequences, rows, self.model.pad_id, "left"), under=(variant,) * len(rows))
                longest = max(counts[row] for row in rows)
                found = as_pass(batch.to(self.model.device), partial(last_logits, self.model, count=longest + 1))
                logits |= {row: found[at, longest - counts[row] : longest] for at, row in enumerate(rows)}
            row = 0
            for kind, number, weight in items:
                if kind == "ordinary":
                    kl = divergence(self._base[number].to(logits[row].device), logits[row]).mean()
                    losses.append(weight * kl.cpu())
                    damage += float(kl.detach())
                    row += 1
                    continue
                both = [token_logprobs(logits[at], sequences[at][-counts[at] :]).sum() for at in (row, row + 1)]
                ratio = both[0] - both[1]
                losses.append(weight * softplus(ratio))
                if answer_weight:
                    losses.append(-weight * answer_weight / counts[row + 1] * both[1])
                refusal += float(torch.sigmoid(ratio.detach())) if kind == "refused" else 0.0
                row += 2
            loss = torch.stack(losses).sum()
            gradients = slopes(loss, wanted)
        if gradients is None:
            raise UnsupportedError(
                f"{self.model.anatomy.architecture} lets no gradients through from what it says to what is written "
                "into the stream; search without descents (`descents=0`)",
                option="descents",
            )
        made = dict(zip(map(id, wanted), gradients, strict=True))
        return _Part(
            loss=float(loss.detach()),
            refusal=refusal,
            damage=damage,
            rows=made.get(id(edit.rows)),
            strengths=made.get(id(edit.strengths)),
        )

    def _sequences(self, items: "Sequence[_Item]") -> tuple[list[list[int]], list[int]]:
        """Prompts with their continuations, two for each choice, and how many tokens of each are read."""
        sequences, counts = [], []
        for kind, number, _ in items:
            if kind == "ordinary":
                kept = self.texts.ordinary[number]
                said = [(kept.prompt, kept.answer)]
            else:
                choice = (self.texts.refused if kind == "refused" else self.texts.over_refused)[number]
                said = [(choice.prompt, choice.refusal), (choice.prompt, choice.answer)]
            for prompt, text in said:
                sequences.append([*prompt, *text[: self.tokens]])
                counts.append(len(text[: self.tokens]))
        check_tokens(self.model, sequences)
        check_lengths(self.model, [len(sequence) for sequence in sequences])
        return sequences, counts

    def _at_once(self) -> int:
        """Prompts whose activations of all blocks are kept for a backward pass."""
        longest = max(
            (
                len(text.prompt)
                for texts in (self.texts.refused, self.texts.ordinary, self.texts.over_refused)
                for text in texts
            ),
            default=1,
        )
        # Each choice has two rows.
        most = differentiated_at_once(self.model, longest + self.tokens, self.tokens) // 2
        return max(1, most if self._batch_size is None else min(most, self._batch_size))

    def _numbers(
        self, refused: Sequence[int] | None, ordinary: Sequence[int] | None, over_refused: Sequence[int] | None
    ) -> tuple[list[int], list[int], list[int]]:
        given = (
            (refused, self.texts.refused),
            (ordinary, self.texts.ordinary),
            (over_refused, self.texts.over_refused),
        )
        first, second, third = (list(range(len(texts)) if some is None else some) for some, texts in given)
        return first, second, third

    def _both(self, choice: Choice) -> list[list[int]]:
        """The beginnings of a refusal and of an answer that are read."""
        return [list(choice.refusal[: self.tokens]), list(choice.answer[: self.tokens])]

    def _kept(self, numbers: Sequence[int]) -> "_Asked":
        """Ordinary prompts with the base's answers."""
        kept = [self.texts.ordinary[number] for number in numbers]
        return [list(each.prompt) for each in kept], [list(each.answer[: self.tokens]) for each in kept]


def _common_end(prompts: Sequence[Sequence[int]]) -> int:
    """The number of last tokens that all prompts have in common."""
    shortest = min(map(len, prompts), default=0)
    alike = (len({tuple(prompt[-count:]) for prompt in prompts}) == 1 for count in range(1, shortest + 1))
    return sum(takewhile(bool, alike))


_Asked = tuple[list[list[int]], list[list[int]]]
_Item = tuple[str, int, float]


def divergence(base: Tensor, edited: Tensor) -> Tensor:
    """KL(base || edited) at each position, (positions,) float32, in nats.

    Args:
        base, edited: logits (positions, vocabulary).
    """
    return kl_from(base.float().log_softmax(dim=-1), edited)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Sums over some prompts; of `refusal` and `damage` without weights."""

    loss: float
    refusal: float
    damage: float
    rows: Tensor | None
    strengths: Tensor | None


class _Sums:
    """What the parts of a gradient add up to."""

    def __init__(self, edit: TrainableEdit) -> None:
        self._rows = torch.zeros_like(edit.rows) if edit.rows.requires_grad else None
        self._strengths = torch.zeros_like(edit.strengths)
        self._loss = self._refusal = self._damage = 0.0

    def add(self, part: _Part) -> None:
        """Take in a part."""
        self._loss += part.loss
        self._refusal += part.refusal
        self._damage += part.damage
        if self._rows is not None and part.rows is not None:
            self._rows += part.rows
        if part.strengths is not None:
            self._strengths += part.strengths

    def slope(self, refused: int, ordinary: int) -> Slope:
        """The whole, with means over so many prompts."""
        return Slope(
            loss=self._loss,
            refusal=self._refusal / max(1, refused),
            damage=self._damage / max(1, ordinary),
            rows=self._rows,
            strengths=self._strengths,
        )
