"""An evaluation's results on a card: tables for readers, and the Hub's `model-index`."""

from collections.abc import Mapping
from typing import Any

from weight_edit.baking.card.markdown import code, origin, plain
from weight_edit.evaluation.figures import by_length, figures, figures_at_lengths, figures_of_base

_RATES = (("refusal", "refusal-rate", "Refusal rate"), ("exact", "exact-match", "Answers exactly right"))


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

    Args:
        name: of the model.
        edited: an evaluation.
    """
    results = []
    # Rates of refusal depend on it; a manifest may say anything.
    most = edited.get("max_new_tokens")
    limit = f", at most {most} tokens" if isinstance(most, int) else ""
    for role, found in (edited.get("sets") or {}).items():
        metrics = []
        for key, kind, title in _RATES:
            if found.get(key):
                metrics.append(_metric(kind, f"{title}{limit}", found[key]))
        for length, cut in by_length(found.get("lengths")).items():
            # A rate of answers that were cut before a decision would read as no refusal.
            if 2 * cut["verdicts"].get("undecided", 0) <= found["count"]:
                metrics.append(_metric("refusal-rate", f"Refusal rate, first {length} tokens", cut["refusal"]))
        divergence = edited.get("divergence")
        if role == "answered" and divergence and divergence.get("mean") is not None:
            mean = round(float(divergence["mean"]), 6)
            metrics.append({"type": "kl-divergence", "name": "KL divergence from the base (nats)", "value": mean})
        prompts = " ".join(str(found.get("prompts") or role).split())
        # The Hub takes what has the form of a data set's id for one.
        kind = prompts.partition(":")[0] if prompts.partition(":")[0].count("/") == 1 else "custom"
        dataset = {"name": f"{prompts} ({role})", "type": kind, **_dataset(found.get("source"))}
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    return [{"name": f"{name}, edited", "results": results}] if results else []


def _metric(kind: str, title: str, rate: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "name": title, "value": round(float(rate["value"]), 6)}


def _dataset(source: Any) -> dict[str, str]:
    """What the Hub's form has room for of a public set's source."""
    if not isinstance(source, Mapping) or not source.get("dataset"):
        return {}
    kept = {key: str(source[key]) for key in ("config", "split", "revision") if source.get(key)}
    return {"type": str(source["dataset"]), **kept}
