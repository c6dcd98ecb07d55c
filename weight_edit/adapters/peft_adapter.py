"""An edit as a folder that PEFT and vLLM load: exact factors of low rank, or the largest ones of a chosen rank."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from weight_edit.adapters.factors import factors_of, own_unembedding
from weight_edit.adapters.limits import check_own_biases, check_plan, merges_with_embedding
from weight_edit.adapters.parameters import Parameters
from weight_edit.adapters.peft_layout import PREFIX, lay_out, tensors_of
from weight_edit.adapters.request import AdapterRequest, MadeAdapter, made_adapter, truncation_note, truncation_of
from weight_edit.adapters.strengths import check_biases_scale, check_linear
from weight_edit.baking.prepare import EditOptions, PreparedEdit, prepare
from weight_edit.errors import UnsupportedError
from weight_edit.plan.exactness import exactness

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_peft(request: AdapterRequest, folder: Path) -> MadeAdapter:
    """Write a PEFT adapter into a folder.

    Raises:
        UsageError, UnsupportedError: as `adapter`.
    """
    baking = prepare(
        request.source,
        request.steps,
        EditOptions(request.embeddings, projector=request.projector),
        written=False,
        trust_remote_code=request.trust_remote_code,
    )
    check_plan(baking.plan, request.rank)
    check_strengths_of(baking, request)
    parameters = Parameters(baking.checkpoint, baking.disk)
    made = factors_of(baking.plan, parameters, request.rank)
    if not made:
        raise UnsupportedError("nothing of the model changes that an adapter could carry; use bake")
    # Biases that are stored whole are of one strength.
    alone = all(each.of_module and not each.embedding for each in made)
    biased = bool(baking.plan.created) or bool(
        request.strengths and alone and any(each.bias is not None for each in made)
    )
    if biased:
        check_own_biases(made)
    if request.strengths:
        check_biases_scale(made, biased)
    stored_whole = own_unembedding(baking.plan, parameters)
    whole = (baking.anatomy.unembedding,) if stored_whole else ()
    layout = lay_out(
        made,
        request.source,
        embedding=baking.anatomy.embedding_weight,
        whole=whole,
        trust_remote_code=request.trust_remote_code,
        # Modules without a direction of their own, whose bias alone changes, still have factors for PEFT.
        rank=max(1, *(each.rank for each in made)),
        biased=biased,
        base=request.source.public_name,
        revision=request.source.revision,
    )
    truncation = truncation_of((each.parameter, each.loss) for each in made)
    notes = (*_notes(baking), *truncation_note(truncation, int(layout.config["r"])))
    tensors = tensors_of(made, layout)
    tensors |= {PREFIX + name: tensor.contiguous() for name, tensor in stored_whole.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write_config(folder, layout.config, 1.0)
    for strength in request.strengths:
        if strength != 1:
            _dosed(folder, layout.config, strength)
    # Nothing is rounded to a format again, and a tied unembedding does not change before the adapter is merged.
    edit_class = exactness(replace(baking.plan, embeddings="untie"))
    return made_adapter(
        baking,
        request,
        folder,
        file_format="peft",
        rank=int(layout.config["r"]),
        modules=[each.module if each.of_module else each.parameter for each in made],
        edit_class=edit_class,
        truncation=truncation,
        whole=whole,
        notes=notes,
    )


def check_strengths_of(baking: PreparedEdit, request: AdapterRequest) -> None:
    """Refuse strengths that were asked for and at which a dosed adapter would be another edit."""
    if request.strengths:
        check_linear(
            baking.plan,
            request.strengths,
            lambda parameter: baking.disk.values(baking.checkpoint, parameter),
            request.projector,
        )


def _write_config(folder: Path, config: dict[str, Any], strength: float) -> None:
    alpha = config["lora_alpha"] * strength
    content = {**config, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def strength_folder(folder: Path, strength: float) -> Path:
    """The folder of an adapter at a strength: that of 1 is the adapter's own."""
    return folder if strength == 1 else folder / f"strength-{strength:g}"


def _dosed(folder: Path, config: dict[str, Any], strength: float) -> None:
    """A folder with the same weights and another scale: the same bytes, where the file system can."""
    place = strength_folder(folder, strength)
    place.mkdir()
    _write_config(place, config, strength)
    try:
        os.link(folder / WEIGHTS, place / WEIGHTS)
    except OSError:
        shutil.copyfile(folder / WEIGHTS, place / WEIGHTS)


def _notes(baking: PreparedEdit) -> tuple[str, ...]:
    """Notes on merging the adapter: sentences."""
    found = []
    if merges_with_embedding(baking.plan):
        anatomy = baking.anatomy
        size = baking.checkpoint.info(baking.disk.only(anatomy.embedding_weight)).size
        found.append(
            f"'{anatomy.unembedding}' is tied to the embedding: it stays as it is until the adapter is merged (what "
            "bake gives with `embeddings='untie'`), and is edited with it then (what bake gives with "
            f"`embeddings='both'`); the stream is the same in both. `embeddings='untie'` stores it whole "
            f"({size / 1e6:.0f} MB), which holds in both"
        )
    if baking.plan.created:
        module = next(iter(baking.plan.created)).removesuffix(".bias")
        found.append(
            f"'{module}' has no bias: PEFT can use this adapter and cannot merge it; bake where it must be one"
        )
    return tuple(found)
