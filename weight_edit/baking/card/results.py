"""An evaluation's results on a card: tables for readers, and the Hub's `model-index`."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.baking.card.markdown import code, origin, plain
from weight_edit.evaluation.figures import by_length, figures, figures_at_lengths, figures_of_base


def table_rows(baseline: Mapping[str, Any] | None, edited: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (measure, base, edited) for every figure that either evaluation has."""
    before = {**figures_of_base(baseline or {}, edited), **figures_at_lengths(baseline or {})}
    after = {**figures(edited), **figures_at_lengths(edited)}
    names = list(dict.fromkeys([*before, *after]))
    # A judge's name, in the rows of its own, may have options with any sign.
    return [(plain(name), before.get(name, ""), after.get(name, "")) for name in names]


def prompt_rows(baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Cells (role, set, number of prompts, digest) for every evaluated prompt set."""
    sets = {**(baseline.get("sets") or {}), **(edited.get("sets") or {})}
    return [
        (
            plain(str(role).replace("_", " ")),
            code(found.get("prompts") or "not recorded") + origin(found.get("source")),
            plain(found.get("count", found["refusal"]["total"])),
            code(str(found.get("sha256") or "not recorded")[:16]),
        )
        for role, found in sets.items()
    ]


def model_index(name: str, edited: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edited model's measurements in the Hub's `model-index` form; empty if there are none.

    That form takes what authors measure on data of their choice, as it is here. The Hub's other one, files in
    `.eval_results/`, takes scores of tasks of the data sets that it has registered as benchmarks, and no others; rates
    of refusal and divergences from a base are none of these. Intervals stand in a metric's `args`, the one entry whose
    keys are free.

    Args:
        name: of the model.
        edited: an evaluation.
    """
    results = []
    for role, found in (edited.get("sets") or {}).items():
        prompts = " ".join(str(found.get("prompts") or role).split())
        # The Hub takes what has the form of a data set's id for one.
        kind = prompts.partition(":")[0] if prompts.partition(":")[0].count("/") == 1 else "custom"
        dataset = {"name": f"{prompts} ({role})", "type": kind, **_dataset(found.get("source"))}
        metrics = list(_metrics(role, found, edited))
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    return [{"name": f"{name}, edited", "results": results}] if results else []


def _metrics(role: str, found: Mapping[str, Any], edited: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The metrics of one prompt set."""
    # Rates of refusal depend on it; a manifest may say anything.
    most, judge = edited.get("max_new_tokens"), edited.get("judge")
    limit = f", at most {most} tokens" if isinstance(most, int) else ""
    judged = {"judge": str(judge)} if judge else {}
    refusal = "Over-refusal rate" if role == "over_refused" else "Refusal rate"
    yield _metric("refusal-rate", f"{refusal}{limit}", found["refusal"], judged)
    if found.get("exact"):
        yield _metric("exact-match", f"Answers exactly right{limit}", found["exact"])
    for length, cut in by_length(found.get("lengths")).items():
        # A rate of answers that were cut before a decision would read as no refusal.
        if 2 * cut["verdicts"].get("undecided", 0) <= found["count"]:
            yield _metric("refusal-rate", f"{refusal}, first {length} tokens", cut["refusal"], judged)
    divergence = edited.get("divergence")
    if role == "answered" and divergence and divergence.get("mean") is not None:
        least = ", at least" if divergence.get("lower_bound") else ""
        yield _metric("kl-divergence", f"KL divergence from the base{least} (nats)", divergence, key="mean")


def _metric(
    kind: str, title: str, figure: Mapping[str, Any], more: Mapping[str, str] | None = None, *, key: str = "value"
) -> dict[str, Any]:
    """A figure with its 95% interval, and for a rate the counts that it is made of."""
    told: dict[str, Any] = dict(more or {})
    if figure.get("total") is not None:
        told |= {"count": int(figure["count"]), "total": int(figure["total"])}
    if figure.get("low") is not None and figure.get("high") is not None:
        told |= {"confidence": 0.95, "low": round(float(figure["low"]), 6), "high": round(float(figure["high"]), 6)}
    metric: dict[str, Any] = {"type": kind, "name": title, "value": round(float(figure[key]), 6)}
    return {**metric, "args": told} if told else metric


def _dataset(source: Any) -> dict[str, str]:
    """What the Hub's form has room for of a public set's source."""
    if not isinstance(source, Mapping) or not source.get("dataset"):
        return {}
    kept = {key: str(source[key]) for key in ("config", "split", "revision") if source.get(key)}
    return {"type": str(source["dataset"]), **kept}
