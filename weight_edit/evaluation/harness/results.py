"""What lm-eval found of a model: its figures with intervals, and documents that can be paired with another model's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose, isfinite
from typing import Any

from weight_edit.evaluation.intervals import Rate, Z
from weight_edit.evaluation.means import mean_comparison

Document = tuple[str, int, str]
"""A document of a task: the task's name, its number and the digest of its content."""

_FEWEST = 3
"""The fewest documents of which a bootstrap can tell an interval."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of a task or of a group of tasks.

    Attributes:
        value: as lm-eval reports it.
        stderr: its standard error, likewise; None where lm-eval gives none.
        low, high: the ends of its 95% interval: Wilson's for shares, the studentised bootstrap's for other means over
            documents, 1.96 standard errors to both sides for the rest; None where there is none.
        count: documents.
        higher_is_better: None where lm-eval does not say.
        by_document: the metric of each document; empty where the value is not their mean.
    """

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    count: int
    higher_is_better: bool | None
    by_document: Mapping[Document, float] = field(repr=False)

    @property
    def share(self) -> bool:
        """Whether it is the share of documents that came out right."""
        return is_share(self.by_document.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: value, stderr, low, high, count, higher_is_better."""
        return {
            "value": self.value,
            "stderr": self.stderr,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True, kw_only=True)
class HarnessResult:
    """The benchmarks of one model.

    Attributes:
        model: its name.
        figures: by task, or group of tasks, and by metric as lm-eval names it with its filter, such as "acc,none".
        document: lm-eval's results as it writes them, without the samples.
        samples: lm-eval's record of each document, by task.
    """

    model: str
    figures: Mapping[str, Mapping[str, Metric]]
    document: Mapping[str, Any] = field(repr=False)
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the model's name, and each task's figures."""
        tasks = {task: {name: each.to_dict() for name, each in some.items()} for task, some in self.figures.items()}
        return {"model": self.model, "tasks": tasks}


def result_of(model: str, document: Mapping[str, Any]) -> HarnessResult:
    """The figures in what lm-eval's `simple_evaluate` returns.

    Args:
        document: its results, with "samples".
    """
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = document.get("samples") or {}
    figures: dict[str, dict[str, Metric]] = {}
    for task in (*document.get("results", {}), *document.get("groups", {})):
        if task in figures:
            continue
        found = {**document.get("groups", {}).get(task, {}), **document.get("results", {}).get(task, {})}
        figures[task] = dict(_figures(task, found, document, samples))
    kept = {key: value for key, value in document.items() if key != "samples"}
    return HarnessResult(
        model=model, figures={task: some for task, some in figures.items() if some}, document=kept, samples=samples
    )


def is_share(values: Any) -> bool:
    """Whether values are outcomes, each 0 or 1, and there are any."""
    return bool(values) and all(value in (0.0, 1.0) for value in values)


def _figures(
    task: str,
    found: Mapping[str, Any],
    document: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, Metric]]:
    better = document.get("higher_is_better", {}).get(task, {})
    for name, reported in found.items():
        metric, comma, kept = name.partition(",")
        value = _number(reported)
        if not comma or metric.endswith("_stderr") or value is None:
            continue
        stderr = _number(found.get(f"{metric}_stderr,{kept}"))
        by_document = _by_document(_leaves(task, document), samples, metric, kept)
        mean = sum(by_document.values()) / len(by_document) if by_document else None
        # Perplexity and corpus scores are no means over documents; some groups weigh all tasks alike.
        if mean is None or not isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12):
            by_document = {}
        low, high = _interval(by_document, value, stderr)
        yield (
            name,
            Metric(
                value=value,
                stderr=stderr,
                low=low,
                high=high,
                count=len(by_document) or _count(task, found, document),
                higher_is_better=better.get(metric),
                by_document=by_document,
            ),
        )


def _leaves(task: str, document: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, those of groups in it too; a task alone is its own."""
    subtasks = document.get("group_subtasks", {}).get(task) or ()
    return [leaf for each in subtasks if each != task for leaf in _leaves(each, document)] or [task]


def _by_document(
    tasks: Sequence[str], samples: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, kept: str
) -> dict[Document, float]:
    """The metric of each document of some tasks; empty where it is not one number for each."""
    found: dict[Document, float] = {}
    for task in tasks:
        for sample in samples.get(task, ()):
            if sample.get("filter", "none") != kept:
                continue
            value, key = _number(sample.get(metric)), (task, int(sample["doc_id"]), str(sample.get("doc_hash")))
            if value is None or key in found:
                return {}
            found[key] = value
    return found


def _interval(
    by_document: Mapping[Document, float], value: float, stderr: float | None
) -> tuple[float, float] | tuple[None, None]:
    values = list(by_document.values())
    if is_share(values):
        rate = Rate(round(sum(values)), len(values))
        return rate.low, rate.high
    if len(values) >= _FEWEST:
        mean = mean_comparison(values)
        return mean.low, mean.high
    return (None, None) if stderr is None else (value - Z * stderr, value + Z * stderr)


def _count(task: str, found: Mapping[str, Any], document: Mapping[str, Any]) -> int:
    counts = document.get("n-samples", {})
    known = [counts[leaf]["effective"] for leaf in _leaves(task, document) if leaf in counts]
    return int(sum(known)) if known else int(found.get("sample_len", 0))


def _number(value: Any) -> float | None:
    """A finite number, Python's or numpy's, as Python's; None for anything else."""
    # The two have no common type that says so.
    if value is None or isinstance(value, str | bytes | tuple | list | dict):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
