"""The edit as a PEFT LoRA adapter, exact and of low rank; see `publish.lora` for its factors."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from weight_edit.anatomy.small import build
from weight_edit.baking import EditOptions, prepare, steps_of
from weight_edit.checkpoint.manifest import record
from weight_edit.checkpoint.output import check_output, staged
from weight_edit.directions.artifact import Directions
from weight_edit.directions.file import DirectionRows
from weight_edit.errors import UnsupportedError, first_line
from weight_edit.publish.finishing import write_card_and_manifest
from weight_edit.publish.inherited import check_id, inherited
from weight_edit.publish.lora import Factors, check_low_rank, factors_of
from weight_edit.runtime.loading import read_config
from weight_edit.runtime.sources import Source, resolve
from weight_edit.steps import EditStep

PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterResult:
    """What was written: the folder, the adapted modules, the adapter's rank, and what about the edit is exact."""

    path: Path
    modules: tuple[str, ...]
    rank: int
    edit_class: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "path": str(self.path), "modules": list(self.modules)}


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
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AdapterResult:
    """Write the edit as an adapter that `peft.PeftModel.from_pretrained` puts on the unedited model.

    Where the embedding is tied, the mode "keep" adapts the unembedding too, which is what baking does; "untie" leaves
    it as it is. Biases of writers are stored in the adapter (PEFT's `bias="lora_only"`). One that a writer has not is
    the adapter's own (`lora_bias`), whatever the model's config can create; such an adapter cannot be merged.

    Args:
        model, directions, edit, strength, layers, at, kernel, edit_options, embeddings, projector: as in `bake`.
        out: the adapter's folder.
        base_model: as in `bake`.

    Raises:
        UsageError, UnsupportedError: as in `bake`; also an edit that is not of low rank, and what PEFT cannot adapt.
    """
    target = Path(out)
    if base_model is not None:
        check_id(base_model)
    check_output(target, overwrite)
    steps = steps_of(directions, edit, strength, layers, at, kernel, edit_options)
    source = resolve(model, revision=revision, token=token)
    options = EditOptions(embeddings, projector=projector)
    baking = prepare(source, steps, options, written=False, trust_remote_code=trust_remote_code)

    def read(parameter: str) -> Tensor:
        return baking.checkpoint.read(baking.disk.only(parameter))

    check_low_rank(baking.plan)
    made = factors_of(baking.plan, read)
    # Modules without a direction of their own, whose bias alone changes, still have factors for PEFT.
    rank = max(1, *(each.rank for each in made))
    biased = bool(baking.plan.created)
    _check_biases(made, biased)
    config = adapter_config(made, rank=rank, biased=biased, base=source.public_name, revision=source.revision)
    _check_loadable(source, config, trust_remote_code)
    with staged(target, overwrite=overwrite, source=source.path) as folder:
        tensors = tensors_of(made, rank=rank, biased=biased)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        files = {name: record(folder, name, "added") for name in ("adapter_model.safetensors", "adapter_config.json")}
        card = inherited(source, baking.checkpoint, base_model)
        write_card_and_manifest(folder, {**baking.summary(), "kind": "adapter", "card": card}, files)
    return AdapterResult(target, tuple(config["target_modules"]), rank, baking.exactness)


def tensors_of(made: Sequence[Factors], *, rank: int, biased: bool) -> dict[str, Tensor]:
    """The adapter's tensors under the names that PEFT saves, in float32.

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
    made: Sequence[Factors], *, rank: int, biased: bool, base: str, revision: str | None
) -> dict[str, Any]:
    """`adapter_config.json`, as PEFT writes it for a LoRA whose factors are used unscaled."""
    from peft import LoraConfig

    modules = [each.module for each in made]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules,
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


def _check_biases(made: Sequence[Factors], biased: bool) -> None:
    embedding = next((each.module for each in made if each.embedding), None)
    if biased and embedding is not None:
        own = next(each.module for each in made if each.bias is not None and each.stored is None)
        raise UnsupportedError(
            f"'{own}' has no bias, and adapters with biases of their own (lora_bias) cannot adapt embeddings, as "
            f"'{embedding}' here; let the constant enter with the embedding (--option enter=embedding), leave that as "
            "it is (--embeddings skip), or use bake"
        )


def _pair(module: str, names: tuple[str, str], a: Tensor, b: Tensor, rank: int) -> dict[str, Tensor]:
    """Both factors, filled up with zeros to the adapter's rank."""
    missing = rank - a.shape[0]
    a = torch.cat([a, a.new_zeros(missing, a.shape[1])])
    b = torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)
    return {f"{PREFIX}{module}.{names[0]}": a.contiguous(), f"{PREFIX}{module}.{names[1]}": b.contiguous()}
