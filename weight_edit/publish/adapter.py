"""The edit as a PEFT LoRA adapter, exact and of low rank; `publish.lora` has its factors."""

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from weight_edit.anatomy.narrow.small import build
from weight_edit.anatomy.parts import Anatomy
from weight_edit.baking.bake import EditOptions, PreparedEdit, prepare, steps_of
from weight_edit.baking.card.card_and_manifest import write_card_and_manifest
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.manifest import record
from weight_edit.checkpoint.quantized.values import values_of
from weight_edit.checkpoint.rewrite.output import check_output, staged
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.directions.directions import Directions
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UnsupportedError, first_line
from weight_edit.hub.base_card import check_id
from weight_edit.hub.source import Named, Source, resolve
from weight_edit.plan.exactness import exactness
from weight_edit.plan.step import EditStep
from weight_edit.publish.lora import Factors, check_low_rank, factors_of, merges_with_embedding, own_unembedding
from weight_edit.runtime.loading import read_config
from weight_edit.utils.progress import bar
from weight_edit.utils.renamed import renamed_arguments, renamed_values

PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class AdapterResult:
    """The written adapter.

    Attributes:
        path: the folder.
        modules: those that are adapted.
        rank: of the adapter.
        edit_class: what about the edit is exact, in words.
        whole: modules whose weights are stored whole: an unembedding that would be merged with the embedding.
        notes: what merging changes, or that it cannot be done: sentences.
    """

    path: Path
    modules: tuple[str, ...]
    rank: int
    edit_class: str
    whole: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"AdapterResult({str(self.path)!r}, rank {self.rank}, {len(self.modules)} modules)"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **asdict(self),
            "path": str(self.path),
            "modules": list(self.modules),
            "whole": list(self.whole),
            "notes": list(self.notes),
        }


@renamed_values
@renamed_arguments(edit="kind", edit_options="options")
def adapter(
    model: Named,
    directions: Directions | DirectionRows | str | Path | Sequence[EditStep],
    out: str | Path,
    *,
    kind: str = "ablate",
    strength: float = 1.0,
    layers: frozenset[int] | None = None,
    at: Sequence[int] | int = (),
    kernel: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    embeddings: str = "both",
    projector: str = "edit",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AdapterResult:
    """Write the edit as a LoRA adapter that `peft.PeftModel` loads onto the unedited model.

    It holds through merging, saving and loading. Where the embedding is tied, PEFT merges into one tensor what two
    modules have: so the mode "both" adapts the embedding alone, and the unembedding goes with it once they are merged,
    as in baking, and not before; "untie" stores the unembedding whole (PEFT's `modules_to_save`), before and after.
    PEFT's `ensure_weight_tying` would be no help: it merges the embedding's share twice as well.
    Biases of writers are stored in the adapter (PEFT's `bias="lora_only"`). One that a writer has not is
    the adapter's own (`lora_bias`), whatever the model's config can create; such an adapter cannot be merged.

    Args:
        model, directions, kind, strength, layers, at, kernel, options, embeddings, projector: as in `bake`.
        out: the adapter's folder.
        base_model: as in `bake`.

    Raises:
        UsageError, UnsupportedError: as in `bake`; also an edit that is not of low rank, and what PEFT cannot adapt.
    """
    target = Path(out)
    if base_model is not None:
        check_id(base_model)
    check_output(target, overwrite)
    steps = steps_of(directions, kind=kind, strength=strength, layers=layers, at=at, kernel=kernel, options=options)
    source = resolve(model, revision=revision, token=token)
    if gguf_files(source.path) is not None:
        raise UnsupportedError(
            f"{source.public_name} is a GGUF file, and an adapter is for a model folder; make it for the folder that "
            "the file was converted from, or edit the file itself with bake"
        )
    how = EditOptions(embeddings, projector=projector)
    baking = prepare(source, steps, how, written=False, trust_remote_code=trust_remote_code)

    def read(parameter: str) -> Tensor:
        name, axes = baking.disk.whole(parameter)
        if name in baking.checkpoint.tensors and baking.checkpoint.info(name).dtype in STORED:
            return baking.checkpoint.read(name).permute(axes)
        # Codes without their scales are other numbers.
        return torch.from_numpy(values_of(baking.checkpoint, name)).permute(axes)

    check_low_rank(baking.plan)
    made = factors_of(baking.plan, read)
    # Modules without a direction of their own, whose bias alone changes, still have factors for PEFT.
    rank = max(1, *(each.rank for each in made))
    biased = bool(baking.plan.created)
    _check_biases(made, biased)
    stored_whole = own_unembedding(baking.plan, read)
    whole = (baking.anatomy.unembedding,) if stored_whole else ()
    config = adapter_config(
        made, rank=rank, biased=biased, base=source.public_name, revision=source.revision, whole=whole
    )
    _check_loadable(source, config, baking.anatomy, trust_remote_code)
    # Nothing is rounded to a format again, and a tied unembedding does not change before the adapter is merged.
    edit_class = exactness(replace(baking.plan, embeddings="untie"))
    notes = _notes(baking)
    with bar("adapter", 0) as shown:
        for note in notes:
            shown.say(f"note: {note}")
    with staged(target, overwrite=overwrite, source=source.path) as folder:
        tensors = tensors_of(made, rank=rank, biased=biased)
        tensors |= {PREFIX + name: tensor.contiguous() for name, tensor in stored_whole.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        files = {name: record(folder, name, "added") for name in ("adapter_model.safetensors", "adapter_config.json")}
        summary = {**baking.summary(), "kind": "adapter", "notes": list(notes), "card": baking.card(base_model)}
        summary["edit"]["class"] = edit_class
        write_card_and_manifest(folder, summary, files)
    return AdapterResult(
        path=target, modules=tuple(config["target_modules"]), rank=rank, edit_class=edit_class, whole=whole, notes=notes
    )


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


def tensors_of(made: Sequence[Factors], *, rank: int, biased: bool) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, in float32.

    Args:
        made: of every module that changes.
        rank: of the adapter: smaller factors are filled up with zeros.
        biased: whether biases are the adapter's own (PEFT's `lora_bias`), instead of changed ones of the modules.
    """
    tensors: dict[str, Tensor] = {}
    for each in made:
        names = ("lora_embedding_A", "lora_embedding_B") if each.embedding else ("lora_A.weight", "lora_B.weight")
        tensors |= _pair(each.module, names, each.a, each.b, rank)
        if biased:
            bias = each.b.new_zeros(len(each.b)) if each.bias is None else each.bias
            tensors[f"{PREFIX}{each.module}.lora_B.bias"] = bias
        elif each.stored is not None and each.bias is not None:
            tensors[f"{PREFIX}{each.module}.base_layer.bias"] = each.stored + each.bias
    return tensors


def adapter_config(
    made: Sequence[Factors],
    *,
    rank: int,
    biased: bool,
    base: str,
    revision: str | None,
    whole: Collection[str] = (),
) -> dict[str, Any]:
    """The content of `adapter_config.json`, as PEFT writes it for unscaled LoRA factors.

    Args:
        made, rank, biased: as in `tensors_of`.
        base, revision: the model that it is for.
        whole: modules whose weights are stored whole.
    """
    from peft import LoraConfig

    modules = [each.module for each in made]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules,
        modules_to_save=list(whole) or None,
        fan_in_fan_out=any(each.transposed for each in made),
        bias="lora_only" if not biased and any(each.stored is not None for each in made) else "none",
        lora_bias=biased,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    ).to_dict()
    config["target_modules"] = modules
    return {key: getattr(value, "value", value) for key, value in config.items()}


def _check_loadable(source: Source, config: dict[str, Any], anatomy: Anatomy, trust_remote_code: bool) -> None:
    """Raise `UnsupportedError` if PEFT cannot load the adapter or would merge it wrongly.

    A merge into a shared tensor would be wrong. PEFT refuses Mamba's output maps, for example.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model = build(read_config(source, trust_remote_code=trust_remote_code), device="meta")
    check_shared(model, config, anatomy.embedding_weight)
    try:
        with warnings.catch_warnings():
            # They are about training and merging, and PEFT says them again when the adapter is loaded.
            warnings.simplefilter("ignore")
            inject_adapter_in_model(LoraConfig(**config), model)
    except ValueError as error:
        raise UnsupportedError(f"an adapter cannot carry this edit: {first_line(error)}; use bake") from error


def check_shared(model: Any, config: Mapping[str, Any], embedding: str) -> None:
    """Raise `UnsupportedError` if an adapted module shares its weight with another module.

    Before merging only the adapted module would be edited, and after it both. The embedding is exempt: `publish.lora`
    takes care of an unembedding that is tied to it.

    Args:
        model: on any device.
        config: of the adapter.
        embedding: the name of the embedding's weight.

    Raises:
        UnsupportedError: names the two; also where PEFT would store more modules whole than are meant.
    """
    adapted = {f"{module}.weight" for module in config["target_modules"]}
    held: dict[int, str] = {}
    # Those that are adapted first, so that they meet all others.
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False), key=lambda it: it[0] not in adapted):
        first = held.setdefault(id(parameter), name)
        if first != name and first in adapted and first != embedding:
            raise UnsupportedError(f"'{first}' and '{name}' are one tensor, so that an adapter edits both; use bake")
    for module in config["modules_to_save"] or ():
        # PEFT takes every module whose name ends so.
        others = [name for name, _ in model.named_modules() if name.endswith(module) and name != module]
        if others:
            raise UnsupportedError(f"PEFT would store '{others[0]}' in the adapter with '{module}'; use bake")


def _check_biases(made: Sequence[Factors], biased: bool) -> None:
    embedding = next((each.module for each in made if each.embedding), None)
    if biased and embedding is not None:
        own = next(each.module for each in made if each.bias is not None and each.stored is None)
        raise UnsupportedError(
            f"'{own}' has no bias, and adapters with biases of their own (lora_bias) cannot adapt embeddings, as "
            f"'{embedding}' here; let the constant enter with the embedding (`options: enter=embedding`), leave that "
            "as it is (`embeddings='skip'`), or use bake",
            option=("options", "embeddings"),
        )


def _pair(module: str, names: tuple[str, str], a: Tensor, b: Tensor, rank: int) -> dict[str, Tensor]:
    """Both factors, padded with zeros to the adapter's rank."""
    missing = rank - a.shape[0]
    a = torch.cat([a, a.new_zeros(missing, a.shape[1])])
    b = torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)
    return {f"{PREFIX}{module}.{names[0]}": a.contiguous(), f"{PREFIX}{module}.{names[1]}": b.contiguous()}
