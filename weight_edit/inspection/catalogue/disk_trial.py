"""A trial through the disk: a narrow copy is saved, baked by the command line, and reloaded."""

import contextlib
import copy
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.inputs.passes import runs
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.anatomy.parts import Anatomy
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.directions.file import read_rows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import WeightEditError
from weight_edit.inspection.catalogue.facts import kinds_of, seen
from weight_edit.plan.plan import plan_ablation
from weight_edit.proofs.architecture import (
    MAX_LEAK,
    MAX_LOGIT_DIFFERENCE,
    double,
    hook_difference,
    largest,
    stream_at_points,
    stream_in_graph,
)
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.cache_folder import own_cache
from weight_edit.utils.name_patterns import general
from weight_edit.utils.progress import quieted
from weight_edit.utils.threads import one_thread


@dataclass(frozen=True, kw_only=True)
class DiskTrial:
    """The measurements of a model that was saved, edited on disk and loaded again.

    Attributes:
        directions: how many were removed together.
        seed: of weights, directions and tokens.
        inputs: what the passes were made of: "text", and "images" or "sounds".
        leak: largest share of any value of the stream that lies along the directions, in float32, after the edit.
        leak_before: the same before it.
        logit_difference: largest difference in logits between hooks on the source and the baked model.
        points: number of values of the stream that were measured.
        kinds: what kinds of structure it has; see `facts.KINDS`.
        writers: what writes, with numbers left out: "model.layers.*.self_attn.o_proj".
        mixers: classes of what mixes tokens without softmax.
        unknown: what may come in from elsewhere and was kept.
        seconds: that it took.
    """

    directions: int
    seed: int
    inputs: tuple[str, ...]
    leak: float
    leak_before: float
    logit_difference: float
    points: int
    kinds: tuple[str, ...]
    writers: tuple[str, ...]
    mixers: tuple[str, ...]
    unknown: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing is left in the stream, and hooks agree with weights."""
        return self.leak < MAX_LEAK and self.logit_difference < MAX_LOGIT_DIFFERENCE


def through_disk(
    config: Any,
    folder: Path,
    *,
    directions: int = 2,
    seed: int = 0,
    anatomy: Anatomy | None = None,
    code: Path | None = None,
) -> DiskTrial:
    """Save, bake, reload and measure a narrow random copy of a config's model.

    Nothing is taken from the user's cache of proven anatomies. Within `folder` there is one, so that several calls
    with the same folder derive the anatomy once.

    Args:
        config: of a model; narrowed here, with all its blocks.
        folder: for files; what is in it from an earlier call is replaced.
        directions: how many random directions are removed together.
        seed: of weights, directions and tokens.
        anatomy: what `anatomy_of` gave for the config; derived here when None.
        code: the folder with the model's own modelling code, which is allowed to run.

    Raises:
        UnsupportedError: with the module that is not understood, or the reason.
        WeightEditError: transformers cannot load what was baked.
    """
    from safetensors.torch import save_file

    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    trust = code is not None
    with own_cache(folder / "cache"), quiet_transformers(), one_thread(), torch.random.fork_rng(devices=[]):
        # What is not understood is refused before anything is saved.
        anatomy = anatomy or anatomy_of(config, trust_remote_code=trust)
        model: Any = narrow_model(config, seed=seed, trust_remote_code=trust)
        for name in ("base", "edited"):
            shutil.rmtree(folder / name, ignore_errors=True)
        # In double precision, which the disk has room for, hooks and weights must agree whatever rounding does:
        # recurrences amplify that of float32 a thousandfold, and it sends tokens to other experts.
        exact = copy.deepcopy(model).double()
        exact.save_pretrained(folder / "base")
        for file in () if code is None else code.glob("*.py"):
            shutil.copy(file, folder / "base")
        width = model.get_parameter(anatomy.writers[0].weight).shape[anatomy.writers[0].axis]
        # What was derived for a model of full size is followed on its narrow copy.
        anatomy = replace(anatomy, d_model=width)
        generator = torch.Generator().manual_seed(seed + 1)
        rows = torch.from_numpy(orthonormal_rows(torch.randn(directions, width, generator=generator))).float()
        save_file({"direction": rows}, folder / "directions.safetensors")
        _bake(folder, partly=bool(anatomy.unknown), trust=trust)
        passes = runs(model, anatomy.media, seed + 2)
        baked = _loaded(model, folder / "edited", torch.float32)
        before = [share for inputs in passes for share in stream_at_points(model, anatomy, rows, inputs)]
        after = [share for inputs in passes for share in stream_at_points(baked, anatomy, rows, inputs)]
        values = [share for inputs in passes for share in stream_in_graph(baked, rows, inputs)]
        stored = Stored.of(Checkpoint.open(folder / "base").tensors)
        layout = proven_anatomy(folder / "base", stored, trust_remote_code=trust).layout
        found = seen(model, passes[0])
        return DiskTrial(
            directions=directions,
            seed=seed,
            inputs=("text", *anatomy.media),
            leak=largest([*after, *values]),
            leak_before=largest(before),
            logit_difference=_difference(model, exact, folder / "edited", anatomy, rows=rows, passes=passes),
            points=len(values),
            kinds=tuple(kinds_of(anatomy, layout, model, found)),
            writers=tuple(dict.fromkeys(general(writer.weight.removesuffix(".weight")) for writer in anatomy.writers)),
            mixers=found.mixers,
            unknown=anatomy.unknown,
            seconds=time.perf_counter() - started,
        )


def _bake(folder: Path, *, partly: bool, trust: bool) -> None:
    with quieted(True):
        bake(
            folder / "base",
            read_rows(folder / "directions.safetensors"),
            folder / "edited",
            projector="partial" if partly else "edit",
            trust_remote_code=trust,
        )


def _loaded(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The model that transformers loads from an edited checkpoint; no tensor may be missing."""
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
    model: Any, exact: Any, edited: Path, anatomy: Anatomy, *, rows: Tensor, passes: Sequence[Mapping[str, Any]]
) -> float:
    """The largest logit difference of hooks and weights, in float64 if the model can."""

    def between(source: Any, dtype: torch.dtype, given: Sequence[Mapping[str, Any]]) -> float:
        state = source.state_dict()
        plan = plan_ablation(anatomy, rows, lambda name: state[name])
        return hook_difference(source, _loaded(source, edited, dtype), plan, given)

    found = float("nan")
    with contextlib.suppress(RuntimeError):
        found = between(exact, torch.float64, [double(inputs) for inputs in passes])
    return between(model, torch.float32, passes) if math.isnan(found) else found
