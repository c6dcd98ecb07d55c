"""An edited model's benchmarks beside its base's, document by document."""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

from weight_edit.evaluation.comparisons import Comparison, family
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.harness.results import HarnessResult, Metric, is_share
from weight_edit.evaluation.intervals import Z
from weight_edit.evaluation.means import mean_difference

_FEWEST = 3


@dataclass(frozen=True)
class MetricDifference:
    """A model's figure minus its base's.

    Attributes:
        comparison: the difference with its interval, and its p value, corrected by Holm's rule over all figures.
        paired: it was taken document by document; else from the two standard errors, as if the documents were others,
            which makes the interval too wide.
    """

    comparison: Comparison
    paired: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: those of `Comparison`, and paired."""
        return {**self.comparison.to_dict(), "paired": self.paired}


@dataclass(frozen=True)
class HarnessComparison:
    """The benchmarks of a model, beside its base's where that was asked for."""

    model: HarnessResult
    base: HarnessResult | None = None

    @property
    def differences(self) -> dict[str, dict[str, MetricDifference]]:
        """By task and metric, what can be compared; empty without a base."""
        if self.base is None:
            return {}
        found: dict[tuple[str, str], MetricDifference] = {}
        for task, figures in self.model.figures.items():
            for name, figure in figures.items():
                earlier = self.base.figures.get(task, {}).get(name)
                apart = None if earlier is None else _difference(earlier, figure)
                if apart is not None:
                    found[task, name] = apart
        corrected = family([each.comparison for each in found.values()])
        by_task: dict[str, dict[str, MetricDifference]] = {}
        for ((task, name), each), comparison in zip(found.items(), corrected, strict=True):
            by_task.setdefault(task, {})[name] = MetricDifference(comparison, each.paired)
        return by_task

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the model's figures, the base's and the differences, without samples."""
        apart = {task: {name: each.to_dict() for name, each in some.items()} for task, some in self.differences.items()}
        own: dict[str, Any] = {"lm_eval_version": self.model.document.get("lm_eval_version"), **self.model.to_dict()}
        return own if self.base is None else {**own, "base": self.base.to_dict(), "differences": apart}


def _difference(base: Metric, edited: Metric) -> MetricDifference | None:
    """The difference of one figure: of pairs where the documents are the same, else of standard errors if known."""
    if base.by_document and base.by_document.keys() == edited.by_document.keys():
        first = [base.by_document[each] for each in edited.by_document]
        second = list(edited.by_document.values())
        if is_share(first) and is_share(second):
            pairs = paired_difference([bool(each) for each in first], [bool(each) for each in second])
            return MetricDifference(pairs.comparison, True)
        if len(first) >= _FEWEST:
            return MetricDifference(mean_difference(first, second), True)
    if base.stderr is None or edited.stderr is None or not (base.stderr or edited.stderr):
        return None
    return MetricDifference(_unpaired(base, edited, sqrt(base.stderr**2 + edited.stderr**2)), False)


def _unpaired(base: Metric, edited: Metric, error: float) -> Comparison:
    value = edited.value - base.value
    return Comparison(
        value=value,
        low=value - Z * error,
        high=value + Z * error,
        p=erfc(abs(value) / error / sqrt(2)),
        count=min(base.count, edited.count),
    )
