"""The edit as a PEFT LoRA adapter: `B = -L`, `A = R^T W` for every writer, exact and of rank k."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from weight_edit.anatomy.small import build
from weight_edit.baking import EditOptions, prepare, steps_of
from weight_edit.checkpoint.manifest import record, write_manifest
from weight_edit.checkpoint.output import check_output, staged
from weight_edit.directions.artifact import Directions
from weight_edit.directions.file import DirectionRows
from weight_edit.errors import UnsupportedError, first_line
from weight_edit.plan import EditPlan
from weight_edit.progress import bar
from weight_edit.runtime.loading import read_config
from weight_edit.runtime.sources import Source, resolve
from weight_edit.steps import EditStep

PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterResult:
    """What was written: the folder, the adapted modules and the adapter's rank."""

    path: Path
    modules: tuple[str, ...]
    rank: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"path": str(self.path), "modules": list(self.modules), "rank": self.rank}


def adapter(
    model: str | Path,
    directions: Directions | DirectionRows | str | Path | Sequence[EditStep],
    out: str | Path,
    *,
    edit: str = "ablate",
    strength: float = 1.0,
    layers: frozenset[int] | None = None,
    at: Sequence[int] = (),
    kernel: Mapping[str, Any] | None = None,
    edit_options: Mapping[str, Any] | None = None,
    embeddings: str = "keep",
    projector: str = "edit",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> AdapterResult:
    """Write the edit as an adapter that `peft.PeftModel.from_pretrained` puts on the unedited model.

    Where the embedding is tied, the mode "keep" adapts the unembedding too, which is what baking does; "untie" leaves
    it as it is. Biases of writers are stored in the adapter (PEFT's `bias="lora_only"`).

    Args:
        model, directions, edit, strength, layers, at, kernel, edit_options, embeddings, projector: as in `bake`.
        out: the adapter's folder.

    Raises:
        UsageError, UnsupportedError: as in `bake`.
    """
    target = Path(out)
    check_output(target, overwrite)
    steps = steps_of(directions, edit, strength, layers, at, kernel, edit_options)
    source = resolve(model, revision=revision, token=token)
    options = EditOptions(embeddings, projector=projector)
    baking = prepare(source, steps, options, trust_remote_code=trust_remote_code)

    def read(parameter: str) -> Tensor:
        return baking.checkpoint.read(baking.disk.only(parameter))

    for each in baking.plan.edits:
        if len(baking.anatomy.shapes[each.writer.weight]) != 2:
            raise UnsupportedError(f"'{each.writer.weight}' is no matrix, and an adapter cannot carry it; use bake")
        if each.writer.weight != f"{each.writer.module}.weight":
            raise UnsupportedError(f"'{each.writer.weight}' is no linear map, and an adapter cannot carry it; use bake")
        if each.writer.norm is not None and each.writer.norm.bias is not None:
            raise UnsupportedError(f"'{each.writer.norm.bias}' changes too, which a LoRA cannot carry; use bake")
    tensors = factors(baking.plan, read)
    # A direction that a norm's gain sends to zero leaves a writer with fewer columns than k.
    rank = max(edit.map.rank for edit in baking.plan.edits)
    config = adapter_config(baking.plan, source.public_name, source.revision, rank)
    _check_loadable(source, config, trust_remote_code)
    with staged(target, overwrite=overwrite, source=source.path) as folder:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        files = {name: record(folder, name, "added") for name in ("adapter_model.safetensors", "adapter_config.json")}
        write_manifest(folder, {**baking.summary(), "kind": "adapter"}, files)
    return AdapterResult(target, tuple(config["target_modules"]), rank)


def factors(plan: EditPlan, read: Any) -> dict[str, Tensor]:
    """The adapter's tensors under the names that PEFT saves, in float32.

    Args:
        read: gives a parameter of the unedited model by name.
    """
    rank = max(edit.map.rank for edit in plan.edits)
    tensors: dict[str, Tensor] = {}
    with bar("adapter", len(plan.edits)) as progress:
        for edit in plan.edits:
            writer = edit.writer
            a, b = edit.map.lora(read(writer.weight).float(), writer.axis)
            names = ("lora_A.weight", "lora_B.weight")
            if writer.role in ("embedding", "position"):
                names = ("lora_embedding_A", "lora_embedding_B")
            tensors |= _pair(writer.module, names, a, b, rank)
            if writer.bias is not None:
                bias = edit.map.on_bias(read(writer.bias).float())
                tensors[f"{PREFIX}{writer.module}.base_layer.bias"] = bias
            progress.advance()
    if plan.tied_edit is not None:
        embedding = read(plan.anatomy.embedding_weight).float()
        left, right, _ = plan.tied_edit.map.factors(embedding.device, embedding.dtype)
        a, b = left.T, -(embedding @ right)
        tensors |= _pair(plan.anatomy.unembedding, ("lora_A.weight", "lora_B.weight"), a, b, rank)
    return tensors


def adapter_config(plan: EditPlan, base: str, revision: str | None, rank: int) -> dict[str, Any]:
    """`adapter_config.json`, as PEFT writes it for a LoRA whose factors are used unscaled."""
    from peft import LoraConfig

    modules = [edit.writer.module for edit in plan.edits]
    if plan.tied_edit is not None:
        modules.append(plan.anatomy.unembedding)
    linear = [edit.writer for edit in plan.edits if edit.writer.layer is not None]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules,
        fan_in_fan_out=any(writer.axis == 1 for writer in linear),
        bias="lora_only" if any(edit.writer.bias for edit in plan.edits) else "none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    ).to_dict()
    config["target_modules"] = modules
    return {key: getattr(value, "value", value) for key, value in config.items()}


def _check_loadable(source: Source, config: dict[str, Any], trust_remote_code: bool) -> None:
    """Refuse what PEFT would not put on the model, such as adapters of Mamba's output maps."""
    from peft import LoraConfig, inject_adapter_in_model

    model = build(read_config(source, trust_remote_code=trust_remote_code), device="meta")
    try:
        with warnings.catch_warnings():
            # They are about training and merging, and PEFT says them again when the adapter is loaded.
            warnings.simplefilter("ignore")
            inject_adapter_in_model(LoraConfig(**config), model)
    except ValueError as error:
        raise UnsupportedError(f"an adapter cannot carry this edit: {first_line(error)}; use bake") from error


def _pair(module: str, names: tuple[str, str], a: Tensor, b: Tensor, rank: int) -> dict[str, Tensor]:
    """Both factors, filled up with zeros to the adapter's rank."""
    missing = rank - a.shape[0]
    a = torch.cat([a, a.new_zeros(missing, a.shape[1])])
    b = torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)
    return {f"{PREFIX}{module}.{names[0]}": a.contiguous(), f"{PREFIX}{module}.{names[1]}": b.contiguous()}
