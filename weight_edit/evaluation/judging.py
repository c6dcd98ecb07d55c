"""Recorded answers judged, and judges held against one another and against human labels: the work of `judge`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import check_free, save_whole
from weight_edit.errors import UsageError
from weight_edit.evaluation.agreement import Agreement
from weight_edit.evaluation.answers_file import are_judged
from weight_edit.evaluation.differences import PairedDifference, paired_difference
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.labels import read_labels
from weight_edit.evaluation.recorded_answers import RecordedAnswer, read_answers
from weight_edit.evaluation.registry import DEFAULT_JUDGES, Judgement, JudgeSpec, judge_specs
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.tables.shown import Shown
from weight_edit.utils.progress import announce

OTHERWISE = "not refused"
"""The name of all verdicts but `refused`, where refusal alone is compared."""


@dataclass(frozen=True, kw_only=True)
class LabelComparison:
    """A judge held against human labels, on the answers that have one.

    Attributes:
        verdicts: labels (first) and the judge's verdicts (second), by kind.
        several: the labels know more kinds than refused and answered, so that the kinds are compared as well.
    """

    verdicts: Agreement
    several: bool

    @property
    def refusal(self) -> Agreement:
        """The same on refusal alone: refused, or anything else."""
        return self.verdicts.as_among(Verdict.REFUSED.value, OTHERWISE)

    @property
    def accuracy(self) -> Rate:
        """The share of answers on which judge and label agree whether it is a refusal."""
        return self.refusal.observed

    @property
    def lean(self) -> PairedDifference:
        """The judge's rate of refusals minus that of the labels, on the same answers."""
        table, refused = self.refusal.counts, Verdict.REFUSED.value
        pairs = ((refused, refused), (refused, OTHERWISE), (OTHERWISE, refused), (OTHERWISE, OTHERWISE))
        return PairedDifference(*(table.get(pair, 0) for pair in pairs))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `refusal` with accuracy, kappa and confusion, `lean`, the confusion of kinds, and `kinds`."""
        refusal, lean = self.refusal.to_dict(), self.lean.comparison.to_dict()
        refusal["accuracy"] = refusal.pop("agreement")
        kinds = {"kinds": self.verdicts.to_dict()} if self.several else {}
        return {"refusal": refusal, "lean": lean, "confusion": self.verdicts.confusion(), **kinds}


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers(Shown):
    """The verdicts of one or several judges on recorded answers.

    Attributes:
        source: the name of the file.
        answers: in its order; those that are repeated in it count in no rate.
        judgements: by judge, as the command line writes it, the deciding one first; one for each answer.
        labels: of each answer; None for one without, empty where no labels were given.
        notes: what a reader of the rates should know.
        out: the file that was written.
        usage: by judge on a server, answers, tokens and cost; judges that use none are not there.
    """

    source: str
    answers: tuple[RecordedAnswer, ...]
    judgements: Mapping[str, Sequence[Judgement]]
    labels: Sequence[Verdict | None] = ()
    notes: tuple[str, ...] = ()
    out: Path | None = None
    usage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        refused = {judge: self.rates(judge)[Verdict.REFUSED] for judge in self.judges}
        said = ", ".join(f"{judge}: {rate.count} of {rate.total} refused" for judge, rate in refused.items())
        return f"JudgedAnswers({self.source!r}, {said})"

    @property
    def judges(self) -> tuple[str, ...]:
        """The judges' names, the deciding one first."""
        return tuple(self.judgements)

    @property
    def count(self) -> int:
        """Number of answers that count."""
        return len(self._counted)

    @property
    def sets(self) -> tuple[str, ...]:
        """The prompt sets in a file that `evaluate` wrote."""
        return tuple(dict.fromkeys(answer.set for answer in self.answers if answer.set is not None))

    def verdicts(self, judge: str, of: str | None = None) -> list[Verdict]:
        """A judge's verdicts on the answers that count, of one prompt set if it is named."""
        given = self.judgements[judge]
        return [given[at].verdict for at in self._counted if of is None or self.answers[at].set == of]

    def rates(self, judge: str, of: str | None = None) -> dict[Verdict, Rate]:
        """The rate of each kind of verdict, with Wilson's interval.

        Raises:
            UsageError: no answers of that set.
        """
        verdicts = self.verdicts(judge, of)
        counts = Counter(verdicts)
        return {kind: Rate(counts[kind], len(verdicts)) for kind in Verdict}

    @property
    def agreements(self) -> dict[tuple[str, str], Agreement]:
        """The agreement of each two judges on the kinds of verdicts."""
        return {
            (one, other): Agreement.of(self.verdicts(one), self.verdicts(other))
            for one, other in combinations(self.judges, 2)
        }

    @property
    def against_labels(self) -> dict[str, LabelComparison]:
        """Each judge held against the labels; empty without labels."""
        counted = [at for at in self._counted if self.labels and self.labels[at] is not None]
        labels = [str(self.labels[at]) for at in counted]
        several = not set(labels) <= {Verdict.REFUSED.value, Verdict.ANSWERED.value}
        return {
            judge: LabelComparison(
                verdicts=Agreement.of(labels, [given[at].verdict.value for at in counted]), several=several
            )
            for judge, given in self.judgements.items()
            if counted
        }

    def differences(self, one: str, other: str) -> PairedDifference:
        """The second judge's rate of refusals minus the first's, on the same answers."""
        first, second = ([v is Verdict.REFUSED for v in self.verdicts(judge)] for judge in (one, other))
        return paired_difference(first, second)

    @property
    def _counted(self) -> list[int]:
        return [at for at, answer in enumerate(self.answers) if not answer.repeated]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: rates by judge (and set), agreements, comparisons with labels, notes."""
        return {
            "file": self.source,
            "count": self.count,
            "judges": {judge: self._judge(judge) for judge in self.judges},
            "agreements": [
                {"first": one, "second": other, **found.to_dict(), "refusal": self._refusal(one, other, found)}
                for (one, other), found in self.agreements.items()
            ],
            "labels": {judge: found.to_dict() for judge, found in self.against_labels.items()},
            "labelled": sum(self.labels[at] is not None for at in self._counted) if self.labels else 0,
            "notes": list(self.notes),
            "out": None if self.out is None else str(self.out),
            **({"usage": {judge: dict(used) for judge, used in self.usage.items()}} if self.usage else {}),
        }

    def _judge(self, judge: str) -> dict[str, Any]:
        by_set = {of: _plain(self.rates(judge, of)) for of in self.sets}
        return {"verdicts": _plain(self.rates(judge)), **({"sets": by_set} if by_set else {})}

    def _refusal(self, one: str, other: str, found: Agreement) -> dict[str, Any]:
        binary = found.as_among(Verdict.REFUSED.value, OTHERWISE)
        return {**binary.to_dict(), "difference": self.differences(one, other).comparison.to_dict()}


def judge_answers(
    path: str | Path,
    judges: str | JudgeSpec | Iterable[str | JudgeSpec] = DEFAULT_JUDGES,
    *,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> JudgedAnswers:
    """Judge the answers in a file that any tool wrote, and hold the judges against human labels.

    Args:
        path: JSON Lines, a JSON list, a CSV or a text file, see `read_answers`.
        judges: one or several; the first decides. As texts `phrases`, or with options `phrases,language=de`.
        labels: a key of the file's entries, or a file with a label for each answer, see `read_labels`.
        out: where the same lines go, unchanged but for `verdict` and `judgements`; of a CSV, its rows as JSON Lines.
        limit: the first so many answers alone.
        overwrite: replace an earlier file of verdicts.

    Raises:
        UsageError: a judge, an option, a line or a label that is wrong, with its line; or `out` may not be written.
    """
    named = {str(spec): spec for spec in judge_specs(judges)}
    path = Path(path)
    target = None if out is None else Path(out)
    if target is not None:
        _check_out(target, path, overwrite)
    answers = read_answers(path, limit)
    told = () if labels is None else tuple(read_labels(labels, answers, limited=limit is not None))
    replies = [answer.reply for answer in answers]
    judgements: dict[str, list[Judgement]] = {}
    for name, spec in named.items():
        if len(named) > 1:
            announce(f"judge {name}: {len(replies)} answers")
        judgements[name] = spec(replies)
        if len(judgements[name]) != len(replies):
            raise RuntimeError(f"the judge {name} gave {len(judgements[name])} judgements on {len(replies)} answers")
    if target is not None:
        lines = (
            answer.with_verdict({name: each[at] for name, each in judgements.items()})
            for at, answer in enumerate(answers)
        )
        save_whole(target, "".join(f"{line}\n" for line in lines))
    return JudgedAnswers(
        source=path.name,
        answers=answers,
        judgements=judgements,
        labels=told,
        notes=_notes(answers, told),
        out=target,
        usage={name: spec.usage for name, spec in named.items() if spec.usage},
    )


def _check_out(target: Path, path: Path, overwrite: bool) -> None:
    if target.resolve() == path.resolve():
        raise UsageError(f"`out={str(target)!r}` is the file that is read; choose another one", option="out")
    check_free(target, overwrite, are_judged)
    if not target.parent.is_dir():
        raise UsageError(f"`out={str(target)!r}`: there is no folder {target.parent}; make it first", option="out")


def _notes(answers: Sequence[RecordedAnswer], labels: Sequence[Verdict | None]) -> tuple[str, ...]:
    notes = []
    repeated = sum(answer.repeated for answer in answers)
    if repeated:
        notes.append(
            f"{repeated} of {len(answers)} lines repeat an answer for another filter of lm-eval; each counts once"
        )
    earlier = sum(isinstance(each.entry.value, dict) and "verdict" in each.entry.value for each in answers)
    if earlier:
        notes.append(f"{earlier} lines had a verdict before; these are new ones")
    missing = sum(label is None for label in labels)
    if missing:
        notes.append(f"{missing} of {len(answers)} answers have no label")
    return tuple(notes)


def _plain(rates: Mapping[Verdict, Rate]) -> dict[str, dict[str, float]]:
    return {kind.value: rate.to_dict() for kind, rate in rates.items()}
