"""Our own figures in the shape of lm-eval's results, for whatever reads those."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import save_whole
from weight_edit.evaluation.harness.results_file import base_path
from weight_edit.utils.json import json_safe
from weight_edit.version import __version__

_VERSION = 1
"""Of these tasks: another number where a figure of the same name means something else."""

_BETTER = {"exact": True, "loss": False, "kl_first_token": False, "undecided": False, "unfinished": False}
_LESS_REFUSAL = ("answered", "over_refused", "harmless_looking")
"""Sets of harmless requests; of harmful ones lm-eval's reader has to know which way is better."""


def harness_document(measured: Mapping[str, Any], *, limit: int | None = None) -> dict[str, Any]:
    """An evaluation as lm-eval's results: each prompt set is a task, each judge a filter.

    Rates have the standard error that lm-eval gives a mean, `sqrt(p (1 - p) / (n - 1))`; the intervals that lm-eval has
    no place for are in the evaluation itself.

    Args:
        measured: `Evaluation.to_dict()`.
        limit: on the prompts of a set.

    Returns:
        `results`, `configs`, `versions`, `n-shot`, `n-samples`, `higher_is_better`, `group_subtasks`, `config` and
        `date` as in lm-eval's files.
    """
    sets: Mapping[str, Mapping[str, Any]] = measured["sets"]
    results = {}
    for name, found in sets.items():
        figures = dict(_figures(found, measured["divergence"] if name == "answered" else None))
        results[_task(name)] = {"alias": _task(name), "sample_len": found["count"], **figures}
    metrics = {task: sorted({key.partition(",")[0] for key in some if "," in key}) for task, some in results.items()}
    return {
        "results": results,
        "group_subtasks": {_task(name): [] for name in sets},
        "configs": {_task(name): _config(_task(name), found, measured) for name, found in sets.items()},
        "versions": {_task(name): _VERSION for name in sets},
        "n-shot": {_task(name): 0 for name in sets},
        "higher_is_better": {
            _task(name): {
                metric: _better(name, metric) for metric in metrics[_task(name)] if not metric.endswith("_stderr")
            }
            for name in sets
        },
        "n-samples": {
            _task(name): {"original": found["count"], "effective": found["count"]} for name, found in sets.items()
        },
        "config": {"model": "weight_edit", "model_args": {"pretrained": measured["model"]}, "limit": limit},
        "date": time.time(),
        "model_source": "weight_edit",
        "model_name": measured["model"],
        "model_name_sanitized": "".join(c if c.isalnum() or c in "-_." else "_" for c in measured["model"]),
        "system_instruction": measured["system"],
        "weight_edit_version": __version__,
    }


def write_harness_document(path: Path, measured: Mapping[str, Any], *, limit: int | None = None) -> None:
    """Write an evaluation in lm-eval's shape, and its base's beside it where it has one, see `base_path`.

    Raises:
        UsageError: it cannot be written.
    """
    both = [(path, measured)]
    if measured.get("base") is not None:
        both.append((base_path(path), measured["base"]))
    for where, document in both:
        found = json_safe(harness_document(document, limit=limit))
        save_whole(where, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _task(name: str) -> str:
    return f"weight_edit_{name}"


def _figures(found: Mapping[str, Any], moved: Mapping[str, Any] | None) -> Iterator[tuple[str, float | str]]:
    """The figures of a set by "metric,filter", each with its standard error beside it."""
    for judge, by in found["judges"].items():
        yield from _rate("refusal", _filter(judge), by["refusal"]["count"], by["refusal"]["total"])
        yield from _rate("undecided", _filter(judge), by["verdicts"].get("undecided", 0), found["count"])
    deciding = _filter(next(iter(found["judges"]), "none"))
    for length, at in (found.get("lengths") or {}).items():
        yield from _rate(f"refusal_at_{length}", deciding, at["refusal"]["count"], at["refusal"]["total"])
    yield from _rate("unfinished", "none", found["unfinished"], found["count"])
    if found["exact"]:
        yield from _rate("exact", "none", found["exact"]["count"], found["exact"]["total"])
    if found["loss"]:
        yield "loss,none", found["loss"]["mean"]
        yield "loss_stderr,none", found["loss"]["standard_error"]
    if moved:
        yield "kl_first_token,none", moved["mean"]
        yield "kl_first_token_stderr,none", "N/A"


def _rate(metric: str, by: str, count: int, total: int) -> Iterator[tuple[str, float | str]]:
    value = count / total
    yield f"{metric},{by}", value
    yield f"{metric}_stderr,{by}", (value * (1 - value) / (total - 1)) ** 0.5 if total > 1 else "N/A"


def _filter(judge: str) -> str:
    # The comma is what lm-eval has between a metric and its filter.
    return judge.replace(",", " ")


def _better(name: str, metric: str) -> bool | None:
    if metric.startswith("refusal"):
        return False if name in _LESS_REFUSAL else None
    return _BETTER[metric]


def _config(task: str, found: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": task,
        "dataset_path": found["prompts"],
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": measured["max_new_tokens"], "do_sample": False, "until": []},
        "num_fewshot": 0,
        "metadata": {"version": _VERSION, "sha256": found["sha256"], "judge": measured["judge"]},
    }
