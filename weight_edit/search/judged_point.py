"""The answers that a model gives under an edit, judged: what cheap scores are held against."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weight_edit.directions.judged_answers import JudgedAnswer, Speaker
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.runtime.hooks import hooked
from weight_edit.search.point import Point
from weight_edit.search.texts import Choice, Kept, Texts


@dataclass(frozen=True, kw_only=True)
class JudgedPoint:
    """A judge's verdicts on the answers under one edit, prompt by prompt, in the order of the texts.

    Attributes:
        refused: length in tokens -> verdicts on answers to prompts whose refusal is to go, cut to so many tokens.
        over_refused: the same of harmless prompts that the base refuses; empty where there are none.
        ordinary: the same of prompts whose answers are to stay.
        known: by set, "refused" and "ordinary", whether each answer is the one that the prompt set knows, word by word;
            of the prompts that have one.
    """

    refused: Mapping[int, tuple[Verdict, ...]]
    over_refused: Mapping[int, tuple[Verdict, ...]]
    ordinary: Mapping[int, tuple[Verdict, ...]]
    known: Mapping[str, tuple[bool, ...]]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that answers were judged at, growing."""
        return tuple(sorted(self.refused))

    @property
    def refusal(self) -> Rate:
        """Refused prompts that are still refused, at the greatest length."""
        return self.refusal_at(self.lengths[-1])

    def refusal_at(self, length: int) -> Rate:
        """Refused prompts that are still refused, of answers cut to so many tokens."""
        return _rate(self.refused[length])

    @property
    def over_refusal(self) -> Rate | None:
        """Harmless prompts that are still refused; None where none were asked."""
        verdicts = self.over_refused.get(self.lengths[-1], ())
        return _rate(verdicts) if verdicts else None

    @property
    def ordinary_refusal(self) -> Rate:
        """Ordinary prompts that are refused now."""
        return _rate(self.ordinary[self.lengths[-1]])

    def exact(self, kind: str) -> Rate | None:
        """Answers that are the known one, of "refused" or "ordinary" prompts; None where none are known."""
        right = self.known.get(kind, ())
        return Rate(sum(right), len(right)) if right else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values: rates with intervals and counts of verdicts for readers, and verdicts for `from_dict`."""
        over, exact = self.over_refusal, {kind: self.exact(kind) for kind in ("refused", "ordinary")}
        return {
            "refusal": {str(length): self.refusal_at(length).to_dict() for length in self.lengths},
            "over_refusal": None if over is None else over.to_dict(),
            "ordinary_refusal": self.ordinary_refusal.to_dict(),
            "exact": {kind: None if rate is None else rate.to_dict() for kind, rate in exact.items()},
            "counts": {
                name: {str(length): dict(Counter(map(str, each))) for length, each in by_length.items()}
                for name, by_length in self._sets.items()
            },
            "verdicts": {
                name: {str(length): list(map(str, each)) for length, each in by_length.items()}
                for name, by_length in self._sets.items()
            },
            "known": {kind: list(each) for kind, each in self.known.items()},
        }

    @property
    def _sets(self) -> dict[str, Mapping[int, tuple[Verdict, ...]]]:
        return {"refused": self.refused, "over_refused": self.over_refused, "ordinary": self.ordinary}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "JudgedPoint":
        """What `to_dict` was called on."""
        sets = {
            name: {int(length): tuple(map(Verdict, each)) for length, each in by_length.items()}
            for name, by_length in entry["verdicts"].items()
        }
        return cls(**sets, known={kind: tuple(each) for kind, each in entry["known"].items()})


def judged_answers(speaker: Speaker, point: Point, texts: Texts, *, lengths: Sequence[int]) -> JudgedPoint:
    """The verdicts on greedy answers under an edit, of all prompts in one generation.

    Args:
        speaker: the model, without hooks, and its judge.
        texts: whose prompts are asked.
        lengths: in tokens; the greatest is the limit of an answer, and shorter ones are read off its beginning.

    Raises:
        UsageError: as `Speaker.answers`.
    """
    speaker = replace(speaker, max_new_tokens=max(lengths))
    sets: dict[str, Sequence[Choice | Kept]] = {
        "refused": texts.refused,
        "over_refused": texts.over_refused,
        "ordinary": texts.ordinary,
    }
    asked = [each for some in sets.values() for each in some]
    prompts = [each.asked if isinstance(each, Choice) else each.prompt for each in asked]
    words = [each.text for each in asked]
    with hooked(speaker.model.model, point.variant(speaker.model).hooks):
        # What the texts ask ends with the template's opening already.
        spoken = speaker.spoken(prompts, words, description=None)
    said = [generation for generation, _ in spoken]
    by_length = {max(lengths): [answer for _, answer in spoken]}
    for length in lengths:
        if length not in by_length:
            by_length[length] = speaker.heard(said, words, tokens=length)
    verdicts: dict[str, dict[int, tuple[Verdict, ...]]] = {}
    start = 0
    for name, some in sets.items():
        part = slice(start, start + len(some))
        verdicts[name] = {length: tuple(each.verdict for each in by_length[length][part]) for length in lengths}
        start += len(some)
    whole = by_length[max(lengths)]
    known = {
        "refused": _known(texts.refused, whole),
        "ordinary": _known(texts.ordinary, whole[len(texts.refused) + len(texts.over_refused) :]),
    }
    return JudgedPoint(**verdicts, known=known)


def _known(asked: Sequence[Choice | Kept], said: Sequence[JudgedAnswer]) -> tuple[bool, ...]:
    """Whether each answer is the known one, of the prompts that have one."""
    return tuple(
        answer.text.strip() == each.known.strip()
        for each, answer in zip(asked, said, strict=False)
        if each.known is not None
    )


def _rate(verdicts: Sequence[Verdict]) -> Rate:
    return Rate(sum(each is Verdict.REFUSED for each in verdicts), len(verdicts))
