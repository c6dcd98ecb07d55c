"""An edit as files that llama.cpp reads beside a model: a LoRA of what is mapped, a control vector of what is added."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from weight_edit.adapters.gguf_file import LORA, VECTOR, check_vectors, write_lora, write_vector
from weight_edit.adapters.gguf_lora import GgufFactors, check_carried, gguf_factors
from weight_edit.adapters.limits import check_plan
from weight_edit.adapters.peft_adapter import check_strengths_of
from weight_edit.adapters.request import (
    AdapterRequest,
    MadeAdapter,
    made_adapter,
    truncation_note,
    truncation_of,
)
from weight_edit.baking.prepare import EditOptions, PreparedEdit, prepare
from weight_edit.baking.tensors import edited_tensors
from weight_edit.edits.changes import Addition, BasisChange, RuntimeOnly, StreamMap
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.errors import UnsupportedError
from weight_edit.plan.exactness import exactness
from weight_edit.plan.plan import check_layers, not_bakeable
from weight_edit.plan.step import EditStep
from weight_edit.utils.arrays import Floats


def write_gguf(request: AdapterRequest, folder: Path) -> MadeAdapter:
    """Write llama.cpp's adapter, control vector, or both, into a folder.

    Raises:
        UsageError, UnsupportedError: as `adapter`.
    """
    maps, vectors = _divided(request.steps)
    baking = _prepared(request, maps, vectors)
    check_vectors(vectors, baking.anatomy.n_layers)
    factors: list[GgufFactors] = []
    if maps:
        factors = _factors(baking, request)
    truncation = truncation_of((each.name, each.loss) for each in factors)
    rank = max((each.rank for each in factors), default=0)
    notes = truncation_note(truncation, rank)
    if factors and vectors:
        notes.append(f"the edit is {LORA} and {VECTOR} together; give llama.cpp both, at one scale")
    gguf = baking.checkpoint.gguf
    architecture = baking.anatomy.model_type if gguf is None else gguf.architecture
    if factors:
        write_lora(folder / LORA, factors, architecture, request.source.public_name)
    if vectors:
        write_vector(folder / VECTOR, vectors, architecture, request.source.public_name)
    return made_adapter(
        baking,
        request,
        folder,
        file_format="gguf",
        rank=rank,
        modules=(*(each.name for each in factors), *(f"direction.{layer - 1}" for layer in sorted(vectors))),
        edit_class=exactness(baking.plan),
        truncation=truncation,
        notes=notes,
    )


def _divided(steps: Sequence[EditStep]) -> tuple[tuple[EditStep, ...], dict[int, Floats]]:
    """The steps that map the stream, and block -> what the others add at its input, after the maps that follow.

    Raises:
        UnsupportedError: a step that is neither; names it.
    """
    maps: list[EditStep] = []
    vectors: dict[int, Floats] = {}
    for step in steps:
        change = step.change
        if isinstance(change, RuntimeOnly):
            raise not_bakeable(step.kind, change)
        if isinstance(change, Addition):
            for layer, vector in change.vectors.items():
                vectors[layer] = vectors.get(layer, 0.0) + vector
            continue
        if isinstance(change, BasisChange):
            raise UnsupportedError(
                "a reflection at a layer also turns what reads the stream, which llama.cpp stores in another order; "
                "edit the file itself with bake, or leave `at` out",
                option="at",
            )
        vectors = _through(step, change, vectors)
        maps.append(step)
    return tuple(maps), vectors


def _through(step: EditStep, change: StreamMap, vectors: dict[int, Floats]) -> dict[int, Floats]:
    """The vectors after a map of the whole stream that comes behind them."""
    if change.map.constant is not None:
        raise UnsupportedError(
            f"edit {step.kind} also sets the stream to a constant, for which llama.cpp's adapters have no place; edit "
            "the file itself with bake, or use `kind='ablate'` with a `kind='add'`",
            option="kind",
        )
    if vectors and step.partial:
        raise UnsupportedError("an addition goes before no edit of some layers here; put it behind", option="layers")
    whole: LowRankMap = change.map.times(step.strength)
    return {layer: vector - whole.taken_off(vector) for layer, vector in vectors.items()}


def _prepared(request: AdapterRequest, maps: Sequence[EditStep], vectors: dict[int, Floats]) -> PreparedEdit:
    """The edit of what is mapped, described as all of it; nothing on disk changes where vectors are all there is."""
    # What llama.cpp adds needs no place in the weights, so that a map stands for it.
    stands = maps or [EditStep(directions=step.directions) for step in request.steps]
    baking = prepare(
        request.source,
        stands,
        EditOptions("skip" if not maps else request.embeddings, projector=request.projector),
        written=False,
        trust_remote_code=request.trust_remote_code,
    )
    if maps and baking.checkpoint.gguf is None:
        raise UnsupportedError(
            "an adapter for llama.cpp is made of the numbers of the GGUF file that it is for: give that file as MODEL; "
            "or write PEFT's adapter (`file_format='peft'`) and let llama.cpp's convert_lora_to_gguf.py translate it",
            option="file_format",
        )
    check_layers(list(vectors), baking.anatomy)
    plan = replace(baking.plan, steps=request.steps, added=vectors)
    if maps:
        return replace(baking, plan=plan)
    nothing = LowRankMap.identity(baking.anatomy.d_model)
    alone = replace(plan, edits=(), norm_biases={}, created={}, reflections=(), stream=nothing)
    return replace(baking, plan=alone, tensors=edited_tensors(baking.checkpoint, {}, dequantize=False))


def _factors(baking: PreparedEdit, request: AdapterRequest) -> list[GgufFactors]:
    check_plan(baking.plan, request.rank)
    changes = baking.disk.laid(baking.plan.tensors())
    check_carried(changes, baking.plan, baking.checkpoint)
    check_strengths_of(replace(baking, plan=replace(baking.plan, steps=_maps(baking))), request)
    return gguf_factors(changes, baking.checkpoint, request.rank)


def _maps(baking: PreparedEdit) -> tuple[EditStep, ...]:
    return tuple(step for step in baking.plan.steps if isinstance(step.change, StreamMap))
