"""Which tokens tell refusals from answers, and which prompts of a search count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from weight_edit.directions.find_folder import Metering
from weight_edit.directions.judged_answers import DECLINED, SampleAnswers
from weight_edit.directions.refusal_metric import find_refusal_tokens, refusal_metric, token_ids
from weight_edit.directions.refusal_tokens import OpeningToken, tokens_of_answers
from weight_edit.directions.samples import Sample, marked
from weight_edit.errors import UsageError
from weight_edit.runtime.activations import residuals_and_next
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs
from weight_edit.runtime.points import Point

Filter = Literal["answers", "first-token", "none"]
Part = Literal["train", "validation", "more"]


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Where the stream is read in the passes that tell first tokens.

    Attributes:
        layers: at whose inputs.
        positions: from a prompt's end, negative.
        known: takes the activations by prompt, (positions, layers, d_model) float32.
    """

    layers: Sequence[int]
    positions: Sequence[int]
    known: dict[tuple[int, ...], Tensor]

    def logprobs(self, meter: "Meter", opened: Sequence[Sequence[int]]) -> Tensor:
        """The first token's log-probabilities of prompts with the answer's opening; their activations are kept."""
        behind = len(meter.opening)
        found, rows = residuals_and_next(
            meter.model,
            opened,
            [Point("resid_pre", layer) for layer in self.layers],
            # What comes behind a prompt changes nothing of it.
            [position - behind for position in self.positions],
            lambda logits: list(logits.float().log_softmax(dim=-1).cpu()),
            batch_size=meter.batch_size,
            description="first tokens and activations",
        )
        for ids, stream in zip(opened, found, strict=True):
            self.known[tuple(ids[: len(ids) - behind])] = stream
        return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class Meter:
    """A model and what is asked of it first.

    Attributes:
        model: the model.
        opening: what comes before an answer's text: what tells refusals from answers is the token behind it.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        answers: the model's answers, judged where they are asked for.
        filter: by what prompts are left out.
        streams: takes the activations of prompts that are run for their first token, which are asked for later.
    """

    model: Model
    opening: Sequence[int]
    batch_size: int | None
    answers: SampleAnswers
    filter: Filter
    streams: Streams | None = None

    def logprobs(self, prompts: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
        """The first token's log-probabilities, of several lists of prompts in one pass."""
        opened = [[[*ids, *self.opening] for ids in some] for some in prompts]
        together = [ids for some in opened for ids in some]
        if self.streams is None:
            values = next_token_logprobs(self.model, together, batch_size=self.batch_size, description="first tokens")
        else:
            values = self.streams.logprobs(self, together)
        found = values.split([len(some) for some in opened])
        for some, values in zip(opened, found, strict=True):
            check_logprobs(self.model, some, values)
        return list(found)

    def keep(self, sample: int, part: Part, metric: Callable[[], Tensor]) -> tuple[bool, ...]:
        """Which prompts of a part count: of targets those that are refused, of the baseline those that are not.

        Args:
            metric: gives the refusal metric of the part's prompts.
        """
        target = sample < len(self.answers.samples) - 1
        if self.filter == "answers":
            return tuple((each.verdict in DECLINED) == target for each in self.answers.of(sample, part))
        values = metric()
        if self.filter == "none":
            return (True,) * len(values)
        return tuple((values > 0 if target else values < 0).tolist())


def metered(
    meter: Meter,
    *,
    refusal_tokens: Sequence[int | str] | None,
    tokens_from: str,
    n_answers: int,
    with_tokens: bool,
    best_effort: bool = False,
) -> Metering:
    """The refusal tokens, which prompts count, and the mean refusal metric of those that do.

    Args:
        refusal_tokens: ids or words; found from the training prompts when None.
        tokens_from: how, one of `SOURCES`.
        n_answers: training prompts of each sample that are asked for that; with `filter="answers"` all of them are.
        with_tokens: whether tokens are needed at all; without them answers alone can filter.
        best_effort: where answers tell no tokens, take those by the difference of first tokens, with a warning.

    Raises:
        UsageError: no tokens can be found, or there is none of that name.
    """
    samples = meter.answers.samples
    asked = [some for sample in samples for some in (sample.train, sample.validation)]
    if not with_tokens:
        pairs = [(meter.keep(n, "train", _unknown), meter.keep(n, "validation", _unknown)) for n in range(len(samples))]
        return Metering(tokens=(), keep=tuple(pairs), means={})
    opens: list[OpeningToken] = []
    heard: dict[str, Any] = {}
    warnings: list[str] = []
    if refusal_tokens is None and tokens_from == "answers":
        count = max(len(sample.train) for sample in samples) if meter.filter == "answers" else n_answers
        try:
            opens, heard = tokens_of_answers(meter.answers, count)
        except UsageError as error:
            if not best_effort:
                raise
            reason = str(error).partition("; ")[0]
            warnings.append(
                f"{reason}; the refusal tokens are the first tokens that target prompts make more probable, which may "
                "be topics, so that scores by them may say nothing of refusal"
            )
    # Training prompts are run only for those who look at their first tokens.
    by_difference = refusal_tokens is None and not opens
    everything = by_difference or meter.filter == "first-token"
    found = meter.logprobs(asked if everything else asked[1::2])
    logprobs = found if everything else [some for held in found for some in (None, held)]
    if opens:
        tokens = [each.id for each in opens]
    elif refusal_tokens is not None:
        tokens = token_ids(refusal_tokens, meter.model.tokenizer)
    else:
        tokens = find_refusal_tokens(torch.cat(found[:-2:2]), found[-2])
    metrics = [None if some is None else refusal_metric(some, tokens) for some in logprobs]

    def kept(number: int) -> tuple[bool, ...]:
        values = metrics[number]
        if meter.filter == "none":
            return (True,) * len(asked[number])
        part: Part = "validation" if number % 2 else "train"
        return meter.keep(number // 2, part, lambda: _known(values))

    keep = [kept(number) for number in range(len(asked))]
    used = [_known(metrics[number])[torch.tensor(keep[number])] for number in range(1, len(asked), 2)]
    return Metering(
        tokens=tuple(tokens),
        keep=tuple(zip(keep[::2], keep[1::2], strict=True)),
        means={"target": float(torch.cat(used[:-1]).mean()), "baseline": float(used[-1].mean())},
        opens=tuple(each.to_dict()["opens"] for each in opens),
        heard=heard,
        warnings=tuple(warnings),
    )


def filtered(metering: Metering, answers: SampleAnswers) -> list[Sample]:
    """The samples without the prompts that do not count.

    Raises:
        UsageError: too few are left of one; with how many answers were cut before a decision.
    """
    samples = answers.samples
    does = ["refuses"] * (len(samples) - 1) + ["answers"]
    pairs = zip(samples, metering.keep, does, strict=True)
    return [
        sample.keep(train, held, what, _hint(answers.undecided(number)))
        for number, (sample, (train, held), what) in enumerate(pairs)
    ]


def _hint(undecided: int) -> str:
    if not undecided:
        return ""
    return f" ({undecided} answers were cut before a decision: allow longer ones by `max_new_tokens`)"


def more_kept(meter: Meter, metering: Metering) -> tuple[tuple[bool, ...], ...]:
    """Which further validation prompts of each sample count, by the same filter."""
    samples = meter.answers.samples

    def metric(sample: Sample) -> Tensor:
        return refusal_metric(meter.logprobs([sample.more])[0], metering.tokens)

    if meter.filter == "none":
        return tuple((True,) * len(sample.more) for sample in samples)
    return tuple(
        meter.keep(number, "more", lambda sample=sample: metric(sample))  # type: ignore[misc]
        if sample.more
        else ()
        for number, sample in enumerate(samples)
    )


def with_more_prompts(samples: Sequence[Sample], keep: Sequence[Sequence[bool]] | None) -> list[Sample]:
    """The samples whose validation prompts are the further ones alone, those that count; all of them where None."""
    found = []
    for number, sample in enumerate(samples):
        marks = [True] * len(sample.more) if keep is None else keep[number]
        prompts = [ids for ids, kept in zip(sample.more, marks, strict=True) if kept]
        found.append(replace(sample, validation=prompts, held_texts=marked(sample.more_texts, marks)))
    return found


def _known(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def _unknown() -> Tensor:
    raise AssertionError("no metric without refusal tokens")
