"""The figures of an evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weight_edit.evaluation.agreement import agreements_document
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.continuation import ContinuationDivergence
from weight_edit.evaluation.differences import PairedDifference, differences
from weight_edit.evaluation.divergence import Divergence
from weight_edit.evaluation.four_classes import four_classes_document
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.lengths import AtLength, at_lengths
from weight_edit.evaluation.loss import Loss, LossBeside, loss_of
from weight_edit.evaluation.paired_answers import continuation_document, paired_document
from weight_edit.evaluation.questions import SETS
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.evaluation.style import Style, style_of
from weight_edit.evaluation.text_loss import TextLoss
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.sets import PromptSet, public_name
from weight_edit.tables.shown import Shown

_BESIDE = ("continuation", "own_answers", "text")
"""Figures that a document has only where they were measured."""


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """The figures of one prompt set.

    Attributes:
        prompts: the set's name.
        sha256: of the prompts that were used.
        refusal: refused answers among all by the judge that decides; no other verdict counts as refusal.
        verdicts: how many answers of each kind by the same judge; every kind is there.
        categories: refusal by category, where the set has categories.
        exact: exactly right answers among the prompts whose answer is known; None where none is. In the
            refused set these are the helpful answers that came back.
        loss: cross-entropy of the known answers, after the model's own thought where it finished one; None where
            none is known.
        unfinished: answers cut at the limit.
        source: where a public set is from, see `PromptSet`; empty for others.
        judges: by each judge's name, how many answers of each kind; the judge that decides comes first.
        lengths: by length in tokens, the verdicts on the answers cut there; empty where no lengths were asked for.
        style: how the answers are written.
    """

    prompts: str
    sha256: str
    refusal: Rate
    verdicts: Mapping[str, int]
    categories: Mapping[str, Rate]
    exact: Rate | None
    loss: Loss | None
    unfinished: int
    source: Mapping[str, str] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lengths: Mapping[int, AtLength] = field(default_factory=dict)
    style: Style | None = None

    def __repr__(self) -> str:
        exact = "" if self.exact is None else f", {self.exact.count} of {self.exact.total} exactly right"
        return f"SetResult({self.prompts!r}, {self.refusal.count} of {self.count} refused{exact})"

    @property
    def count(self) -> int:
        """Number of prompts."""
        return self.refusal.total

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "prompts": self.prompts,
            "sha256": self.sha256,
            "count": self.count,
            "refusal": self.refusal.to_dict(),
            "verdicts": dict(self.verdicts),
            "categories": {name: rate.to_dict() for name, rate in self.categories.items()},
            "exact": self.exact and self.exact.to_dict(),
            "loss": self.loss and self.loss.to_dict(),
            "unfinished": self.unfinished,
            **({"source": dict(self.source)} if self.source else {}),
            "judges": {name: self._by(counts) for name, counts in self.judges.items()},
            **({"lengths": {str(n): each.to_dict() for n, each in self.lengths.items()}} if self.lengths else {}),
            "style": self.style and self.style.to_dict(),
        }

    def _by(self, counts: Mapping[str, int]) -> dict[str, Any]:
        return {"refusal": Rate(counts[Verdict.REFUSED.value], self.count).to_dict(), "verdicts": dict(counts)}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Shown):
    """The measurements of one model.

    Attributes:
        model: its name.
        judge: the judge that decides, with its options.
        max_new_tokens: the limit on an answer's length, which refusal rates depend on.
        system: the system prompt, if any.
        refused, answered, over_refused, harmless_looking: one result per given set.
        divergence: of the first answer token on the answered set, from the base; None without a base.
        answers: every answer, set by set.
        template, template_args, thinking: the chat template, its variables and what was asked of it, see `ChatFormat`.
        notes: what a reader of the rates should know, such as why no answer of a set could be judged.
        base: what was measured of the base on the same prompts, where that was asked for.
        judges: all judges, with their options, the one that decides first.
        continuation: the divergence over the base's own greedy answers to the answered set; None without a base.
        own_answers: the cross-entropy of those answers, beside the base's; a base has its own.
        text: the cross-entropy of a set of texts, beside the base's.
    """

    model: str
    judge: str
    max_new_tokens: int
    system: str | None
    refused: SetResult | None
    answered: SetResult | None
    over_refused: SetResult | None
    harmless_looking: SetResult | None
    divergence: Divergence | None
    answers: tuple[Answer, ...]
    template: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    thinking: str | None = None
    notes: tuple[str, ...] = ()
    base: "Evaluation | None" = field(default=None, repr=False)
    judges: tuple[JudgeSpec, ...] = ()
    continuation: ContinuationDivergence | None = None
    own_answers: LossBeside | None = None
    text: TextLoss | None = None

    @property
    def differences(self) -> dict[str, dict[str, PairedDifference]]:
        """The differences from the base's rates, by set; empty without a base."""
        return {} if self.base is None else differences(self.base.answers, self.answers)

    def __repr__(self) -> str:
        sets = [f"{result.refusal.count} of {result.count} of the {name} set" for name, result in self.sets.items()]
        moved = "" if self.divergence is None else f", KL {self.divergence.mean:.3g}"
        return f"Evaluation({self.model!r}, refuses {', '.join(sets) or 'nothing that was asked'}{moved})"

    @property
    def sets(self) -> dict[str, SetResult]:
        """The results of the evaluated sets, by name."""
        return {name: result for name in SETS if (result := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the answers, which `write_answers` writes."""
        return {
            "model": self.model,
            "judge": self.judge,
            "judges": {str(spec): spec.to_dict() for spec in self.judges},
            "max_new_tokens": self.max_new_tokens,
            "system": self.system,
            "template": self.template,
            "template_args": dict(self.template_args),
            **({} if self.thinking is None else {"thinking": self.thinking}),
            "notes": list(self.notes),
            "sets": {name: result.to_dict() for name, result in self.sets.items()},
            "divergence": self.divergence and self.divergence.to_dict(),
            **agreements_document(self.answers),
            **{name: found.to_dict() for name in _BESIDE if (found := getattr(self, name)) is not None},
            **(
                {}
                if self.base is None
                else {
                    "base": self.base.to_dict(),
                    "differences": paired_document(self.base.answers, self.answers),
                    **four_classes_document(self.base.answers, self.answers),
                    **(
                        {}
                        if self.continuation is None
                        else continuation_document(self.base.answers, self.continuation.per_prompt.tolist())
                    ),
                }
            ),
        }


def set_result(prompts: PromptSet, answers: Sequence[Answer]) -> SetResult:
    """The figures of one prompt set from its answers, one for each prompt."""
    judges = list(answers[0].judgements)
    counts = {name: Counter(answer.judgements[name].verdict for answer in answers) for name in judges}
    by_judge = {name: {verdict.value: counts[name][verdict] for verdict in Verdict} for name in judges}
    known = [answer for answer in answers if answer.expected is not None]
    nats = [answer.nats for answer in answers if answer.nats is not None]
    by_category: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.category is not None:
            by_category.setdefault(answer.category, []).append(answer)
    return SetResult(
        prompts=public_name(prompts.name),
        sha256=prompts.sha256,
        refusal=_refusal(answers),
        verdicts=by_judge[judges[0]],
        categories={category: _refusal(some) for category, some in by_category.items()},
        exact=Rate(sum(answer.right for answer in known), len(known)) if known else None,
        loss=loss_of(nats) if nats else None,
        unfinished=sum(not answer.finished for answer in answers),
        source=prompts.source,
        judges=by_judge,
        lengths=at_lengths(answers),
        style=style_of(answers),
    )


def _refusal(answers: Sequence[Answer]) -> Rate:
    return Rate(sum(answer.verdict is Verdict.REFUSED for answer in answers), len(answers))
