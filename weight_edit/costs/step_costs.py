"""The costs of each step of a find, a search, and of what follows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from weight_edit.costs.amounts import Amounts, Range
from weight_edit.costs.model_size import ModelSize
from weight_edit.costs.rates import Rates
from weight_edit.costs.workload import Lengths, Workload
from weight_edit.directions.certainty import MOST
from weight_edit.directions.confirmation import OTHERS

CHECKS = Range(4, 8)
"""Passes of a verification over its prompts: the base under hooks and the edited model, in two dtypes, and rounding."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step takes.

    Attributes:
        name: of the step.
        what: it does, in a few words.
        passes: prompts, each under one edit or none, that go through the model.
        tokens: tokens that go through its blocks.
        flops: floating-point operations, a multiplication with an addition being two; of all processes together.
        bytes_read: from disk, by all processes together.
        bytes_written: to disk.
        seconds: None where no rate is known.
    """

    name: str
    what: str
    passes: Range
    tokens: Range
    flops: Range
    bytes_read: Range
    bytes_written: int = 0
    seconds: Range | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "what": self.what,
            **{key: getattr(self, key).to_dict() for key in ("passes", "tokens", "flops", "bytes_read")},
            "bytes_written": self.bytes_written,
            "seconds": None if self.seconds is None else self.seconds.to_dict(),
        }


def step_costs(size: ModelSize, work: Workload, rates: Rates | None) -> list[StepCost]:
    """The steps in the order in which they are taken; those that are not asked for are left out."""
    return _Plan(size, work, rates).steps()


@dataclass(frozen=True)
class _Plan:
    size: ModelSize
    work: Workload
    rates: Rates | None

    def steps(self) -> list[StepCost]:
        work = self.work
        drawn, held = work.n_train + work.n_validation, work.n_validation
        steps = []
        if not work.offload:
            steps.append(self._step("load", "the checkpoint into memory", Amounts(), read=self.size.checkpoint_bytes))
        if work.answers:
            longest = work.max_new_tokens
            first = self._both(lambda lengths: self._pass(lengths, work.answers))
            whole = self._both(lambda lengths: self._answers(lengths, work.answers, longest))
            steps.append(
                self._step(
                    "judged answers",
                    f"to {work.answers} prompts of each set, of up to {longest} tokens",
                    replace(first, requests=1, heads=1),
                    replace(whole, requests=longest, heads=longest),
                )
            )
        if work.first_tokens:
            looked_at = self._both(lambda lengths: self._pass(lengths, work.first_tokens))
            steps.append(
                self._step(
                    "first tokens",
                    f"of answers to {work.first_tokens} prompts of each set, unless another pass has them",
                    Amounts(),
                    replace(looked_at, requests=1, heads=1),
                )
            )
        steps.append(
            self._step(
                "activations",
                f"at {work.positions} positions of {drawn} prompts of each set",
                replace(self._both(lambda lengths: self._pass(lengths, drawn, logits=False)), requests=1),
            )
        )
        steps.append(self._selection())
        if work.n_more:
            more = self._scores(MOST, work.n_more)
            steps.append(
                self._step(
                    "more prompts",
                    f"up to {MOST} that cannot be told apart, on {work.n_more} more of each set",
                    Amounts(),
                    replace(more, requests=3, heads=3),
                )
            )
        steps.append(self._step("control", "one random direction", replace(self._scores(1, held), requests=1, heads=1)))
        if work.confirm:
            edits, tokens = 2 + OTHERS, work.max_new_tokens
            first = self._pass(work.target, work.confirm)
            whole = self._answers(work.target, work.confirm, tokens)
            steps.append(
                self._step(
                    "confirmation",
                    f"answers to {work.confirm} prompts without an edit and under up to {1 + OTHERS} candidates",
                    replace(_times(first, 2), requests=1, heads=1),
                    replace(_times(whole, edits), requests=tokens, heads=tokens),
                )
            )
        if work.trials:
            trial = self._both(lambda lengths: self._pass(lengths, held))
            steps.append(
                self._step(
                    "search",
                    f"{work.trials} trials, each on {held} validation prompts of each set",
                    replace(_times(trial, work.trials), requests=1, heads=1),
                    replace(_times(trial, work.trials), requests=work.trials, heads=work.trials),
                )
            )
        steps += [self._bake(), self._verification()]
        if work.n_evaluate:
            steps.append(self._evaluation())
        return steps

    def _selection(self) -> StepCost:
        """By stages: the cheapest score of all candidates at least, and every score of all at most."""
        low, high = self.work.candidates
        held = self.work.n_validation
        plain = self._pass(self.work.baseline, held)
        first = self._added(low) if self.work.induces else self._pass(self.work.baseline, held, low)
        both = f"{low}" if low == high else f"{low} to {high}"
        name = "induce scores" if self.work.induces else "the KL"
        return self._step(
            "selection",
            f"{both} candidates on {held} validation prompts of each set: {name} of all, other scores of those left",
            replace(plain + first, requests=2, heads=2),
            replace(plain + self._scores(high, held), requests=4, heads=4),
        )

    def _added(self, candidates: float) -> Amounts:
        """Baseline prompts with a difference added, each run from its layer on: layers that may be chosen alike."""
        whole = self._pass(self.work.baseline, self.work.n_validation, candidates)
        logits = whole.passes * self.size.per_logits
        blocks = self.size.counts.blocks
        layers = range(max(1, self.work.allowed))
        share = sum(sum(blocks[layer:]) for layer in layers) / len(layers)
        return replace(whole, flops=share * (whole.flops - logits) + logits)

    def _bake(self) -> StepCost:
        size = self.size.checkpoint_bytes
        # L (R^T W) of a single direction, once.
        edit = Amounts(flops=4.0 * self.size.written)
        step = self._step("bake", "the edited copy, whole", edit, read=size, written=size)
        if self.rates is None:
            return step
        # Reading and writing go side by side, in threads of their own.
        longer = size / min(self.rates.disk, self.rates.disk_write)
        both = size / self.rates.disk + size / self.rates.disk_write
        return replace(step, seconds=Range(longer, both))

    def _verification(self) -> StepCost:
        each = self._pass(self.work.baseline, self.work.n_verify)
        read = self.size.checkpoint_bytes
        low, high = (_times(each, count) for count in (CHECKS.low, CHECKS.high))
        return self._step(
            "verify",
            f"both files compared; {self.work.n_verify} prompts through both models",
            replace(low, requests=2, heads=2),
            replace(high, requests=CHECKS.high, heads=CHECKS.high),
            read=(2 if self.work.offload else 4) * read,
        )

    def _evaluation(self) -> StepCost:
        n, tokens = self.work.n_evaluate, self.work.evaluate_tokens
        sets = (self.work.target, self.work.baseline)
        first = self._pass(sets[0], n) + self._pass(sets[1], n)
        whole = self._answers(sets[0], n, tokens) + self._answers(sets[1], n, tokens)
        longer = Lengths.all_alike(self.work.baseline.mean + tokens)
        # The base's own answers are read by both models; logits at each of their tokens.
        along = self._pass(longer, n) + Amounts(flops=n * (tokens - 1) * self.size.per_logits)
        return self._step(
            "evaluate",
            f"the base and the edited model answer {n} prompts of each of two sets, of up to {tokens} tokens",
            replace(_times(first, 2), requests=2, heads=2),
            replace(_times(whole + along, 2), requests=2.0 * (tokens + 1), heads=2.0 * (tokens + 1)),
            read=0 if self.work.offload else 2 * self.size.checkpoint_bytes,
        )

    def _both(self, of: Callable[[Lengths], Amounts]) -> Amounts:
        """What target prompts of every set and baseline prompts take together."""
        return _times(of(self.work.target), self.work.targets) + of(self.work.baseline)

    def _scores(self, candidates: float, prompts: int) -> Amounts:
        """All three scores: target prompts once and baseline prompts twice, under one edit each time."""
        targets = self._pass(self.work.target, prompts * self.work.targets, candidates)
        return targets + _times(self._pass(self.work.baseline, prompts, candidates), 2)

    def _pass(self, lengths: Lengths, prompts: float, edits: float = 1, *, logits: bool = True) -> Amounts:
        """Prompts under each of several edits, the common prefix run once for each."""
        prefix, counts = self.work.prefix, self.size.counts
        tokens = prefix + prompts * (lengths.mean - prefix)
        pairs = prefix**2 + prompts * (lengths.square - prefix * lengths.mean)
        flops = counts.per_token * tokens + counts.per_pair * pairs
        if logits:
            flops += prompts * self.size.per_logits
        return _times(Amounts(passes=prompts, tokens=tokens, flops=flops), edits)

    def _answers(self, lengths: Lengths, prompts: float, longest: int) -> Amounts:
        """Greedy answers that are as long as they may be."""
        counts, more = self.size.counts, longest - 1
        keys = more * (lengths.mean + (more + 1) / 2)
        decoded = prompts * (more * (counts.per_token + self.size.per_logits) + counts.per_pair * keys)
        return self._pass(lengths, prompts) + Amounts(tokens=prompts * more, flops=decoded, decoded=decoded)

    def _step(
        self, name: str, what: str, low: Amounts, high: Amounts | None = None, *, read: float = 0.0, written: int = 0
    ) -> StepCost:
        """A step whose amounts lie between two.

        Args:
            read: bytes that each process reads whatever the model does.
        """
        high = low if high is None else high
        processes = self.work.processes
        bytes_read = Range(*(self._read(each) + read for each in (low, high)))
        seconds = None
        if self.rates is not None:
            fast, slow = (self.rates.computing(each, processes) for each in (low, high))
            disk = Range(bytes_read.low / self.rates.disk, bytes_read.high / self.rates.disk)
            wrote = written / self.rates.disk_write
            # A device with memory of its own computes while the next block is read.
            seconds = Range(max(fast.low, disk.low) + wrote, slow.high + disk.high + wrote)
        return StepCost(
            name=name,
            what=what,
            passes=Range(low.passes, high.passes),
            tokens=Range(low.tokens, high.tokens),
            flops=Range(low.flops, high.flops),
            bytes_read=Range(bytes_read.low * processes, bytes_read.high * processes),
            bytes_written=written,
            seconds=seconds,
        )

    def _read(self, amounts: Amounts) -> float:
        """The bytes that an offloaded model's requests read: each block once, and of the embedding the rows in use."""
        if not self.work.offload:
            return 0.0
        rows = min(self.size.embedding_bytes, amounts.tokens * self.size.row_bytes)
        blocks = amounts.requests * self.size.blocks_bytes
        heads = amounts.heads * self.size.unembedding_bytes
        return self.size.stored_share * (blocks + heads + rows * min(1.0, amounts.requests))


def _times(amounts: Amounts, factor: float) -> Amounts:
    """The amounts of several pieces of work alike; requests are not multiplied."""
    return Amounts(
        passes=amounts.passes * factor,
        tokens=amounts.tokens * factor,
        flops=amounts.flops * factor,
        decoded=amounts.decoded * factor,
    )
