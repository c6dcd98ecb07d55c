"""The effects of each candidate on the model: the three scores of arXiv 2406.11717."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.evaluation.kl import exact, kl_from
from weight_edit.runtime.forward import Row, next_token
from weight_edit.runtime.hooks import Hook, addition_hook
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant
from weight_edit.utils.progress import Bar, bar

AblationHooks = Callable[[Tensor], list[Hook]]

Values = Mapping[str, tuple[float, ...]]
"""Values of scores prompt by prompt, by the score's name."""

ABLATED = ("kl", "protected_kl", "bypass")
"""The scores that ask the model with a candidate's directions ablated."""

SCORES = ("bypass", "kl", "protected_kl", "induce")
"""All scores that are means over prompts."""

_ROWS, _FEW_ROWS = 512, 64
"""Prompts that are asked at once under several candidates, on an accelerator and on a processor.

What is asked at once is kept at once, so that a search that is killed loses as much.
"""

_CHUNK = 64
"""Rows of logits that are in float64 at a time: of a vocabulary of 256k they are 134 MB."""


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """The scores of one candidate.

    Attributes:
        position, layer: where it was found: position counted from a prompt's end, input of the layer.
        bypass: mean refusal metric on target prompts with the directions ablated; low is good. None without refusal
            tokens.
        induce: mean refusal metric on baseline prompts with the difference added at the input of its layer. None
            where there is nothing to add, or no layer to add it at.
        kl: mean KL(base || ablated) of the next token on baseline prompts, in nats.
        norm: length of the difference.
        rank: number of directions.
        accuracy: of the finder's first classifier on held-out prompts; None where it has none.
        cosmic: similarity score of arXiv 2506.00085, high is good; None where it was not asked for.
        cosmic_ablated, cosmic_added: its two parts, cosines of activations with the directions ablated and added.
        protected_kl: as `kl`, on protected prompts; None where there are none.
        values: of `bypass`, `induce`, `kl` and `protected_kl`, by name, the values that they are the means of, prompt
            by prompt.

    What was not measured is None: a candidate of length zero has no direction, one of a layer that is out cannot be
    chosen, and one that misses a bound needs no score of a later stage. NaN and infinities are the model's own.
    """

    position: int | None
    layer: int | None
    bypass: float | None
    induce: float | None
    kl: float | None
    norm: float
    rank: int = 1
    accuracy: float | None = None
    cosmic: float | None = None
    protected_kl: float | None = None
    cosmic_ablated: float | None = None
    cosmic_added: float | None = None
    values: Values = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those of single prompts; NaN as None."""
        values = asdict(self)
        del values["values"]
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def score_of(candidate: Candidate, values: Values) -> CandidateScore:
    """The scores of a candidate, means of the values that there are; of others None."""
    return CandidateScore(
        position=candidate.position,
        layer=candidate.layer,
        **{name: mean(values[name]) if values.get(name) else None for name in SCORES},
        norm=candidate.norm,
        rank=candidate.rank,
        accuracy=candidate.facts.get("accuracy"),
        values={name: tuple(some) for name, some in values.items() if some},
    )


def mean(values: Sequence[float]) -> float:
    """The mean, exactly rounded; NaN or infinite where a value is."""
    return (math.fsum(values) if all(map(math.isfinite, values)) else sum(values)) / len(values)


class Scorer:
    """A model that is asked for candidates' scores on validation prompts.

    What the unedited model says is asked once, its log-probabilities stay on the device, and so does its stream, from
    which additions are run on.

    Args:
        target, baseline: token ids of validation prompts.
        protected: token ids of validation prompts that an edit should leave alone.
        tokens: ids of the refusal tokens; none leaves out the two scores that need them.
        ablation_hooks: gives the hooks that ablate the span of rows (k, d_model) from the whole stream.
        batch_size: prompts in a pass, at most; None is as many as memory allows.
    """

    def __init__(
        self,
        model: Model,
        *,
        target: Sequence[Sequence[int]],
        baseline: Sequence[Sequence[int]],
        tokens: Collection[int],
        ablation_hooks: AblationHooks,
        protected: Sequence[Sequence[int]] = (),
        batch_size: int | None = None,
    ) -> None:
        self.model, self.tokens, self.batch_size = model, tokens, batch_size
        self._prompts = {"kl": baseline, "protected_kl": protected, "bypass": target if tokens else ()}
        self._ablation_hooks = ablation_hooks
        self._plain: dict[str, Tensor] = {}
        self._trunk: Trunk | None = None

    def names(self, candidate: Candidate) -> list[str]:
        """The scores that a candidate can have."""
        able = [name for name in ABLATED if self._prompts[name]]
        return [*able, "induce"] if self.tokens and self._prompts["kl"] and addable(candidate) else able

    def measure(
        self,
        asked: Mapping[int, Candidate],
        names: Collection[str],
        done: Callable[[int, Values], None],
        *,
        what: str,
        before: int = 0,
    ) -> None:
        """Measure scores of candidates, some at a time.

        Args:
            asked: candidates by number.
            names: of the scores; what a candidate cannot have is left out.
            done: is given every candidate's number and values as soon as they are measured.
            what: names the bar; before: how many it counts as done.

        Raises:
            UsageError: a prompt is empty or too long, memory runs out with a single one, or the unedited model gives no
                numbers.
        """
        wanted = {number: [n for n in self.names(each) if n in names] for number, each in asked.items()}
        rows = sum(len(self._of(name)) for name in set().union(*wanted.values()))
        if not rows:
            return
        if "kl" not in self._plain:
            begin = [each.layer for n, each in asked.items() if "induce" in wanted[n] and each.layer is not None]
            self._trunk = Trunk(self.model, self._prompts["kl"], begin) if begin else None
        with bar(what, len(asked) + before, done=before) as progress:
            # Counted with the first of the candidates: before it, nothing is known of the rate.
            for group in groups(self.model, _ordered(asked, names), rows):
                part = _Rest(progress, len(group), sum(len(self._of(name)) for n in group for name in wanted[n]))
                found: dict[int, dict[str, tuple[float, ...]]] = {number: {} for number in group}
                for each in (self._ablated, self._added):
                    for number, values in each({n: asked[n] for n in group}, wanted, part).items():
                        found[number] |= values
                for number, values in found.items():
                    done(number, values)
                part.complete()

    def _of(self, name: str) -> Sequence[Sequence[int]]:
        return self._prompts["kl" if name == "induce" else name]

    def _ablated(
        self, asked: Mapping[int, Candidate], wanted: Mapping[int, Sequence[str]], within: Bar
    ) -> dict[int, dict[str, tuple[float, ...]]]:
        """The values of the scores under ablation: refused and ordinary prompts of a candidate share batches."""
        names = [name for name in ABLATED if any(name in some for some in wanted.values())]
        if not names:
            return {}
        places = [(name, row) for name in names for row in range(len(self._prompts[name]))]
        plain = {name: self._logprobs(name) for name in names if name != "bypass"}

        def read(rows: Sequence[Row], logits: Tensor) -> list[Tensor]:
            found: list[Tensor] = [logits.new_empty(())] * len(rows)
            for name in names:
                mine = [index for index, row in enumerate(rows) if places[row.prompt][0] == name]
                if not mine:
                    continue
                those = logits if len(mine) == len(rows) else logits[mine]
                if name == "bypass":
                    values = refusal_metric(those, self.tokens)
                else:
                    base = plain[name][[places[rows[index].prompt][1] for index in mine]]
                    values = kl_from(base, those)
                for index, value in zip(mine, values.unbind(), strict=True):
                    found[index] = value
            return found

        answers = self._ask(
            [self._prompts[name][row] for name, row in places],
            read,
            [Variant(tuple(self._ablation_hooks(candidate.rows))) for candidate in asked.values()],
            within,
        )
        sizes = [len(self._prompts[name]) for name in names]
        return {
            number: {name: tuple(some.tolist()) for name, some in zip(names, values.split(sizes), strict=True)}
            for number, values in zip(asked, answers, strict=True)
        }

    def _added(
        self, asked: Mapping[int, Candidate], wanted: Mapping[int, Sequence[str]], within: Bar
    ) -> dict[int, dict[str, tuple[float, ...]]]:
        """The values of the score under addition, each from its own block on."""
        able = [number for number in asked if "induce" in wanted[number]]
        if not able:
            return {}
        self._logprobs("kl")
        answers = self._ask(
            self._prompts["kl"],
            lambda rows, logits: list(refusal_metric(logits, self.tokens).unbind()),
            [addition(self.model, asked[number]) for number in able],
            within,
            self._trunk,
        )
        return {number: {"induce": tuple(values.tolist())} for number, values in zip(able, answers, strict=True)}

    def _logprobs(self, name: str) -> Tensor:
        """The unedited model's log-probabilities, (prompts, vocabulary) in float64 on its device; asked once."""
        if name not in self._plain:
            prompts = self._prompts[name]

            def read(rows: Sequence[Row], logits: Tensor) -> list[Tensor]:
                return list(exact(logits).log_softmax(dim=-1).unbind())

            (rows,) = next_token(
                self.model,
                prompts,
                read,
                variants=[PLAIN],
                trunk=self._trunk if name == "kl" else None,
                batch_size=self.batch_size,
                description=None,
            )
            found = rows[0].new_empty(len(rows), *rows[0].shape)
            for number, row in enumerate(rows):
                found[number] = row
                # Nothing holds a batch's own numbers any more when its last row is moved.
                rows[number] = found[number]
            check_logprobs(self.model, prompts, found)
            self._plain[name] = found
        return self._plain[name]

    def _ask(
        self,
        prompts: Sequence[Sequence[int]],
        read: Callable[[Sequence[Row], Tensor], list[Tensor]],
        variants: Sequence[Variant],
        within: Bar,
        trunk: Trunk | None = None,
    ) -> list[Tensor]:
        """What `read` gives of every prompt under each variant, (prompts,) on the CPU."""

        def in_chunks(rows: Sequence[Row], logits: Tensor) -> list[Tensor]:
            starts = range(0, len(rows), _CHUNK)
            return [value for n in starts for value in read(rows[n : n + _CHUNK], logits[n : n + _CHUNK])]

        found = next_token(
            self.model,
            prompts,
            in_chunks,
            variants=variants,
            trunk=trunk,
            batch_size=self.batch_size,
            description=None,
            within=within,
        )
        return [torch.stack(values).cpu().double() for values in found]


def _ordered(asked: Mapping[int, Candidate], names: Collection[str]) -> list[int]:
    """The candidates, those that are added at one layer beside one another: they are run on from there together."""
    alone = set(names) == {"induce"}
    return sorted(asked, key=lambda number: asked[number].layer or 0) if alone else list(asked)


def groups(model: Model, numbers: Sequence[int], rows: int) -> Iterator[Sequence[int]]:
    """The candidates, as many at a time as are asked at once; all where each request reads all weights.

    Args:
        rows: prompts that each is asked on.
    """
    most = _FEW_ROWS if model.device.type == "cpu" else _ROWS
    size = max(1, most // rows) if model.offload is None else len(numbers)
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def addable(candidate: Candidate) -> bool:
    """Whether there is something to add, and a layer to add it at."""
    return candidate.layer is not None and candidate.vector is not None


def addition(model: Model, candidate: Candidate) -> Variant:
    """The variant that adds a candidate's difference at the input of its layer."""
    assert candidate.layer is not None
    assert candidate.vector is not None
    return Variant((addition_hook(model, candidate.layer, candidate.vector.float()),))


@dataclass(frozen=True)
class Similarity:
    """The two cosines of COSMIC (arXiv 2506.00085), NaN for a candidate without scores.

    Attributes:
        ablated: of target activations with the directions ablated, with the baseline's.
        added: of baseline activations with the difference added, with the target's.
    """

    ablated: float = math.nan
    added: float = math.nan

    @property
    def total(self) -> float:
        """The score: their sum."""
        return self.ablated + self.added


def with_similarity(score: CandidateScore, similarity: Similarity | None) -> CandidateScore:
    """The scores with a similarity beside them; None leaves them as they are."""
    if similarity is None:
        return score
    return replace(score, cosmic=similarity.total, cosmic_ablated=similarity.ablated, cosmic_added=similarity.added)


def with_more(score: CandidateScore, more: Mapping[str, tuple[float, ...]]) -> CandidateScore:
    """The scores over the values of further prompts, too, which stand behind those there are."""
    values = {name: (*some, *more.get(name, ())) for name, some in score.values.items()}
    means = {name: mean(some) for name, some in values.items() if some}
    return replace(score, values=values, **means)  # type: ignore[arg-type]


class _Rest:
    """A progress bar's view of some candidates: their prompts add up to as many units of the whole bar."""

    def __init__(self, whole: Bar, units: int, prompts: int) -> None:
        self._whole, self._units, self._prompts, self._told = whole, units, max(1, prompts), 0.0

    def advance(self, n: float = 1) -> None:
        """Move on by n prompts."""
        self._told += n * self._units / self._prompts
        self._whole.advance(n * self._units / self._prompts)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self._whole.say(line)

    def complete(self) -> None:
        """Complete the candidates' units."""
        self._whole.advance(self._units - self._told)


def worth_scoring(candidate: Candidate, layers: int) -> bool:
    """Whether a candidate has a direction, and a layer that may be chosen."""
    return candidate.norm > 0.0 and (candidate.layer is None or candidate.layer < layers)
