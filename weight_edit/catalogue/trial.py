"""One model type put to the test: a small model of it is saved, baked by the command line, loaded back, and measured."""

import contextlib
import copy
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.layout import Layout
from weight_edit.anatomy.parts import Anatomy
from weight_edit.anatomy.proven import proven_anatomy
from weight_edit.anatomy.runs import runs
from weight_edit.anatomy.small import narrow_model
from weight_edit.anatomy.stored import Stored
from weight_edit.catalogue.entries import Entry
from weight_edit.catalogue.facts import kinds_of
from weight_edit.catalogue.sampling import sample
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.edits import orthonormal_rows
from weight_edit.errors import WeightEditError
from weight_edit.plan import edit_plan
from weight_edit.proof import double, logits, stream_at_points, stream_in_graph
from weight_edit.runtime.hooks import hooked
from weight_edit.threads import one_thread

MAX_LEAK = 1e-5
MAX_LOGIT_DIFFERENCE = 1e-4
PROVEN, REFUSED, FAILED = "proven", "refused", "failed"


@dataclass(frozen=True)
class Trial:
    """What became of one model type.

    Attributes:
        model_type, architecture, tasks: of the entry.
        status: "proven" (complete, and hooks agree with weights, on what was loaded from the disk), "refused" (with a
            reason, before a byte was written), or "failed": neither of the two, a fault of this package.
        reason: why it was refused, or what failed.
        leak: largest share of any value of the stream that lies along the directions, in float32, after the edit.
        leak_before: the same before it.
        logit_difference: largest difference in logits between hooks on the source and the baked model.
        points: number of values of the stream that were measured.
        kinds: what kinds of structure it has; see `facts.KINDS`.
        writers: what writes, with numbers left out: "layers.*.self_attn.o_proj".
        unknown: what may come in from elsewhere and was kept.
        seconds: that the trial took.
    """

    model_type: str
    architecture: str
    tasks: tuple[str, ...]
    status: str
    reason: str = ""
    leak: float | None = None
    leak_before: float | None = None
    logit_difference: float | None = None
    points: int = 0
    kinds: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    seconds: float = 0.0


def attempt(entry: Entry, *, seed: int = 0) -> Trial:
    """Try one model type.

    Args:
        entry: the type.
        seed: of weights, directions and tokens.
    """
    started = time.perf_counter()
    result: dict[str, Any] = {}
    try:
        with TemporaryDirectory(prefix="weight-edit-") as folder, one_thread():
            result = _measured(entry, Path(folder), seed)
        status, reason = PROVEN, ""
        if not (result["leak"] < MAX_LEAK and result["logit_difference"] < MAX_LOGIT_DIFFERENCE):
            status, reason = FAILED, "something is left of the directions, or hooks and weights differ"
    except WeightEditError as error:
        status, reason = (REFUSED if error.exit_code == 3 else FAILED), str(error)
    seconds = time.perf_counter() - started
    return Trial(entry.model_type, entry.architecture, entry.tasks, status, reason, **result, seconds=seconds)


def _measured(entry: Entry, folder: Path, seed: int) -> dict[str, Any]:
    from safetensors.torch import save_file

    config = sample(entry.model_type)
    # What is not understood is refused before anything is saved.
    anatomy = anatomy_of(config)
    model: Any = narrow_model(config, seed=seed)
    # In double precision, which the disk has room for, hooks and weights must agree whatever rounding does: recurrences
    # amplify that of float32 a thousandfold, and it sends tokens to other experts.
    exact = copy.deepcopy(model).double()
    exact.save_pretrained(folder / "base")
    width = model.get_parameter(anatomy.writers[0].weight).shape[anatomy.writers[0].axis]
    generator = torch.Generator().manual_seed(seed + 1)
    rows = torch.from_numpy(orthonormal_rows(torch.randn(2, width, generator=generator))).float()
    save_file({"direction": rows}, folder / "directions.safetensors")
    _bake(folder, partly=bool(anatomy.unknown))
    passes = runs(model, anatomy.media, seed + 2)
    baked = _loaded(model, folder / "edited", torch.float32)
    before = [share for inputs in passes for share in stream_at_points(model, anatomy, rows, inputs)]
    after = [share for inputs in passes for share in stream_at_points(baked, anatomy, rows, inputs)]
    values = [share for inputs in passes for share in stream_in_graph(baked, rows, inputs)]
    return {
        "leak": max(*after, *values),
        "leak_before": max(before),
        "logit_difference": _difference(model, exact, folder / "edited", anatomy, rows, passes),
        "points": len(values),
        "kinds": tuple(kinds_of(anatomy, _layout(folder / "base"))),
        "writers": tuple(dict.fromkeys(_general(writer.weight) for writer in anatomy.writers)),
        "unknown": anatomy.unknown,
    }


def _layout(folder: Path) -> Layout:
    return proven_anatomy(folder, Stored.of(Checkpoint.open(folder).tensors)).layout


def _general(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.removesuffix(".weight").split("."))


def _bake(folder: Path, partly: bool) -> None:
    from weight_edit.commands import app

    base, directions, out = folder / "base", folder / "directions.safetensors", folder / "edited"
    call = ["bake", str(base), "--directions", str(directions), "--out", str(out), "--quiet", "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        app([*call, *(["--projector", "followed"] if partly else [])], standalone_mode=False)


def _loaded(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    """What transformers makes of an edited checkpoint; every tensor has to come from the files."""
    baked, info = type(model).from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    missing = sorted(set(info["missing_keys"]) | set(info["mismatched_keys"]))
    if missing:
        raise WeightEditError(f"transformers finds no '{missing[0]}' in what was saved and baked")
    return baked.eval()


def _difference(
    model: Any, exact: Any, edited: Path, anatomy: Anatomy, rows: Tensor, passes: Sequence[Mapping[str, Any]]
) -> float:
    """Between hooks on the source and the baked weights, in double precision where the model's code allows for it."""
    found = float("nan")
    with suppress(RuntimeError):
        twice = [double(inputs) for inputs in passes]
        found = _between(exact, _loaded(model, edited, torch.float64), anatomy, rows, twice)
    return _between(model, _loaded(model, edited, torch.float32), anatomy, rows, passes) if math.isnan(found) else found


def _between(
    source: nn.Module, baked: nn.Module, anatomy: Anatomy, rows: Tensor, passes: Sequence[Mapping[str, Any]]
) -> float:
    state = source.state_dict()
    plan = edit_plan(anatomy, rows, lambda name: state[name])
    with hooked(source, plan.hooks(lambda name: state[name])):
        wanted = [logits(source, inputs) for inputs in passes]
    pairs = zip(passes, wanted, strict=True)
    return max(float((logits(baked, inputs) - expected).abs().max()) for inputs, expected in pairs)


def to_json(trial: Trial) -> str:
    """One line."""
    return json.dumps(trial.__dict__)
