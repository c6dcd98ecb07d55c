"""Folders of runs as a report reads them, written by hand, with every part that a run may have."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weight_edit.evaluation.intervals import Rate

SETS = {"refused": (40, 38, 3), "answered": (60, 0, 1), "over_refused": (20, 18, 2), "harmless_looking": (30, 2, 2)}
"""Set -> prompts, refusals before, refusals after."""

LAYERS = 6


def rate(count: int, total: int) -> dict[str, Any]:
    """A rate as results keep it."""
    return Rate(count, total).to_dict()


def mean(value: float, spread: float = 0.01, **more: Any) -> dict[str, Any]:
    """A mean with an interval."""
    return {"mean": value, "low": value - spread, "high": value + spread, **more}


def estimated(value: float, spread: float) -> dict[str, Any]:
    """A figure with an interval."""
    return {"value": value, "low": value - spread, "high": value + spread}


def difference(value: float, spread: float = 0.05, *, told: bool = True) -> dict[str, Any]:
    """A paired difference with an interval."""
    return {"value": value, "low": value - spread, "high": value + spread, "p": 0.01, "told": told}


def evaluation(after: bool) -> dict[str, Any]:
    """`Evaluation.to_dict()` before or after the edit."""
    sets = {}
    for name, (count, before, then) in SETS.items():
        refused = then if after else before
        by_category = {f"kind-{i}": rate(refused // 4, count // 4) for i in range(4)}
        by_length = {str(n): {"refusal": rate(max(0, refused - 2 // n), count), "verdicts": {}} for n in (4, 16, 64)}
        languages = {"en": rate(count - 2, count), "de": rate(2, count)}
        sets[name] = {
            "prompts": f"{name}.txt",
            "sha256": "0" * 64,
            "count": count,
            "refusal": rate(refused, count),
            "exact": rate(count - refused - 1, count),
            "verdicts": {"refused": refused, "answered": count - refused - 1, "looping": 1},
            "categories": by_category,
            "lengths": by_length,
            "judges": {
                "phrases": {"refusal": rate(refused, count)},
                "guard": {"refusal": rate(refused + 1, count + 1)},
            },
            "loss": mean(0.2 + 0.1 * after),
            "unfinished": 2,
            "style": {
                "apology": rate(refused, count),
                "tokens": {"value": 12.0 + 9 * after, "low": 11.0, "high": 22.0, "count": count},
                "languages": languages,
            },
        }
    found: dict[str, Any] = {
        "model": "sample",
        "judge": "phrases",
        "judges": {"phrases": {}, "guard": {}},
        "max_new_tokens": 64,
        "sets": sets,
        "divergence": None,
        "agreements": {
            "guard": {"refusal": {"kappa": {"value": 0.8, "low": 0.7, "high": 0.9}, "agreement": rate(9, 10)}}
        },
    }
    if after:
        apart = {
            name: {
                "refusal": difference((then - before) / count),
                "loss": difference(0.1, told=False),
                "style": {"apology": difference((then - before) / count), "tokens": difference(9.0, 0.5)},
            }
            for name, (count, before, then) in SETS.items()
        }
        found |= {
            "divergence": mean(0.0312, agreement=rate(58, 60)),
            "continuation": mean(0.0123, 0.002, tokens=4, per_position=[0.03, 0.01, 0.005, 0.0025], counts=[60] * 4),
            "own_answers": mean(0.021, 0.002, base=mean(0.02, 0.002), difference=difference(0.001, 0.002, told=False)),
            "differences": apart,
            "four_classes": {
                "paper": "2602.02132",
                "of_each": 20,
                "accuracy": rate(30, 60),
                "refusal_rate": rate(3, 20),
            },
        }
    return found


def verification() -> dict[str, Any]:
    """`Verification.to_dict()` of a complete edit."""
    edits = [
        {
            "tensor": f"model.layers.{layer}.{part}.weight",
            "entries": 4096,
            "left": 2e-8 * (1 + layer),
            "left_exact": 1e-9,
        }
        for layer in range(LAYERS)
        for part in ("self_attn.o_proj", "mlp.down_proj")
    ]
    return {
        "passed": True,
        "integrity": True,
        "complete": True,
        "leak": 7.25e-8,
        "storage_dtype": "float32",
        "prompts": 16,
        "problems": [],
        "left_in_weights": 2.5e-8,
        "left_in_weights_at": "model.layers.0.mlp.down_proj.weight",
        "edited_tensors": {"compared": 12, "bit_for_bit": 12},
        "by_dtype": {
            "float32": {
                "leak": 7.25e-8,
                "leak_before": 0.58,
                "hook_against_weights": {"largest": 9.5e-6, "scale": 22.1, "kl": 5.9e-13, "argmax": 1.0},
                "allowed": {"leak": 1e-5, "logits": 1e-3, "kl": 1e-6},
            }
        },
        "integrity_report": {
            "tensors_edited": 12,
            "tensors_equal": 44,
            "files_equal": 6,
            "bytes_compared": 1e6,
            "edits": edits,
        },
    }


def answers(after: bool, prompts: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The rows of an answers file, whose verdicts are those of `SETS`."""
    rows = []
    for name, (count, before, then) in SETS.items():
        refused = then if after else before
        for number in range(count):
            is_refusal = number < refused
            words = "I cannot help with that." if is_refusal else f"Here is answer {number}{'!' * after}"
            rows.append(
                {
                    "set": name,
                    "prompt": (prompts or {}).get(name, f"Question {number} of {name}?")
                    if not number
                    else f"Question {number} of {name}?",
                    "answer": words,
                    "expected": None,
                    "verdict": "refused" if is_refusal else "answered",
                    "category": f"kind-{number % 4}",
                    "finished": number != 1,
                    "tokens": 5,
                }
            )
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A file with an object on each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def sample_run(folder: Path, **changed: Any) -> Path:
    """A finished run with every part that a report shows; `changed` replaces entries of its recipe."""
    recipe = {
        "title": "A sample of every part",
        "model": "sample",
        "seed": 3,
        "find": {"method": "mean-difference", "target": "refused.txt", "baseline": "answered.txt"},
        "edit": {"kind": "ablate", "strength": 1.0, "layers": None, "at": [], "kernel": None, "then": []},
        **changed,
    }
    direction = {
        "method": "mean-difference",
        "layer": 3,
        "position": -1,
        "tokens_from": "answers",
        "bypass": -3.0,
        "control": {"bypass": 4.0},
        "candidates": 12,
        "kept_bounds": 2,
        "separation": {"auc": 0.99, "relative_norm": 0.37},
        "sha256": "1" * 64,
        "warnings": [],
    }
    summary = {
        "baseline": evaluation(False),
        "direction": direction,
        "edited": evaluation(True),
        "verification": verification(),
        "effect": {"verdict": "changed", "finding": "The edit is complete; and the behaviour changed.", "hint": ""},
        "seconds": 12.5,
    }
    steps = {name: {"key": "x", "seconds": 1.5, "files": {}, "result": None} for name in ("baseline", "find", "bake")}
    state = {
        "weight_edit": "0.2.0",
        "status": "done",
        "recipe": recipe,
        "steps": steps,
        "summary": summary,
        "files": {},
    }
    write_json(folder / "run.json", state)
    for name, after in (("baseline", False), ("edited", True)):
        write_rows(folder / "answers" / f"{name}.jsonl", answers(after))
    write_directions(folder / "directions.safetensors")
    write_studies(folder / "studies")
    write_json(folder / "search" / "search.json", search())
    (folder / "search" / "points").mkdir()
    (folder / "search" / "points" / "01-point2.yaml").write_text("model: sample\n", encoding="utf-8")
    write_json(folder / "geometry.json", geometry())
    return folder


def write_directions(path: Path, rejected: str = "") -> None:
    """A directions file whose record has scores of twelve candidates, some of them rejected, for a reason if given."""
    from safetensors.numpy import save_file

    scores = [
        {
            "layer": layer,
            "position": position,
            "bypass": -0.5 * layer + position,
            "induce": 0.5 * layer,
            "kl": 0.01 * layer,
            "intervals": {"bypass": [-0.5 * layer + position - 1, -0.5 * layer + position + 1]},
            "rejected": None if layer > 2 else rejected or f"induce score {0.5 * layer} below 2",
        }
        for layer in range(LAYERS)
        for position in (-2, -1)
    ]
    record = {
        "scores": scores,
        "positions": [-2, -1],
        "position_labels": ["<|end|>", "\n"],
        "versions": {"torch": "2.13.0"},
    }
    save_file({"direction": np.eye(1, 8, dtype=np.float32)}, path, metadata={"weight_edit": json.dumps(record)})


def write_studies(folder: Path) -> None:
    """A sweep, a comparison of edits, and eleven categories' curves and cosines, with a random control."""
    sweep = [{"directions": "none", "strength": 0.0, "refusal": 1.0, "over_refusal": 0.9, "looking": 0.1}]
    for name, fall in (("main", 1.0), ("random", 0.02)):
        for strength in (0.25, 0.5, 1.0):
            row: dict[str, Any] = {"directions": name, "strength": strength}
            for key, start in (("refusal", 1.0), ("over_refusal", 0.9), ("looking", 0.1)):
                value = start * (1 - fall * strength)
                row |= {key: value, f"{key}_low": max(0.0, value - 0.1), f"{key}_high": min(1.0, value + 0.1)}
            sweep.append(row)
    write_json(folder / "1-strength" / "sweep.json", sweep)
    compare = [{"directions": "none", "edit": "none", "refusal": 1.0, "over_refusal": 0.9, "kl": 0.0}]
    compare += [{"directions": "main", "edit": "ablate", "refusal": 0.1, "over_refusal": 0.2, "kl": 0.01}]
    write_json(folder / "2-edits" / "compare.json", compare)
    names = [f"category-{i}" for i in range(11)]
    curves = [
        {"direction": name, "strength": s, "refusal_rate": 0.5 + 0.4 * s, "over_refusal_rate": 0.4 + 0.02 * i + 0.2 * s}
        for i, name in enumerate([*names, "random"])
        for s in (-1.0, 0.0, 1.0)
    ]
    write_json(folder / "3-categories" / "curves.json", curves)
    cosines = [{"category": a, **{b: 1.0 if a == b else 0.5 for b in names}} for a in names]
    write_json(folder / "3-categories" / "cosines.json", cosines)


def search() -> dict[str, Any]:
    """`search.json` of a finished search."""

    def point(number: int, origin: str) -> dict[str, Any]:
        sets = {name: {"refusal": {"64": rate(number, 20)}} for name in ("refused", "over_refused")}
        return {
            "digest": f"point{number}",
            "origin": origin,
            "directions": 1,
            "cheap": {"validation": {"refusal": 0.05 * number, "damage": 0.1 / (1 + number)}},
            "judged": {"judge": "phrases", "sets": sets},
        }

    return {
        "weight_edit": "0.2.0",
        "status": "done",
        "front": [point(2, "sampler"), point(6, "descent")],
        "picked": {"point": {"digest": "point2"}, "kept": True, "reason": "the least damage that keeps the bounds"},
        "plain": point(1, "plain"),
        "others": [point(9, "sampler")],
        "tau": {"value": 0.81, "low": 0.7, "high": 0.9, "sentence": "the cheap score ranks well: tau 0.81"},
        "sketch_tau": {"value": None, "sentence": "cannot be told"},
        "candidates": 40,
        "warnings": ["few prompts"],
        "files": {},
    }


def geometry() -> dict[str, Any]:
    """`geometry.json` of two classes, one of which the edit moves."""
    centres = {("refused", "base"): (4.0, 1.0), ("answered", "base"): (-2.0, 0.0)}
    centres |= {("refused", "edited"): (0.0, 1.1), ("answered", "edited"): (0.0, 0.1)}
    classes = [
        {"class": name, "model": model, "centre": list(at), "covariance": [[0.5, 0.1], [0.1, 0.3]], "count": 20}
        for (name, model), at in centres.items()
    ]
    points = [
        {"class": name, "model": model, "prompt": i, "along": x + 0.1 * i, "across": y - 0.1 * i}
        for (name, model), (x, y) in centres.items()
        for i in range(5)
    ]
    separation = [
        {"layer": layer, "base": estimated(0.9, 0.1), "edited": estimated(0.6, 0.1)} for layer in range(LAYERS + 1)
    ]
    control = [{"layer": layer, **estimated(0.5, 0.1)} for layer in range(LAYERS + 1)]
    components = [
        {"layer": layer, "class": name, "model": model, **mean(2.0 * layer * (model == "base"))}
        for layer in range(LAYERS + 1)
        for name in ("refused", "answered")
        for model in ("base", "edited")
    ]
    axes = {"along": "along the direction", "across": "across it"}
    return {
        "version": 1,
        "layer": 3,
        "position": -1,
        "direction": "main",
        "axes": axes,
        "points": points,
        "classes": classes,
        "separation": separation,
        "control": {"what": "dealt at random", "separation": control},
        "components": components,
    }
