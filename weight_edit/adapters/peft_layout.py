"""Factors as PEFT's adapter files have them: names and shapes of tensors, and `adapter_config.json`.

Linear maps, embeddings and Conv1D are `target_modules`. Stacks of experts and their biases are `target_parameters`, as
is what PEFT takes for an expert by its name: of a mixture it renames `down_proj` and others, those of shared experts
and dense blocks too, to the stack's. Where each tensor goes is read off a model in which PEFT has put its layers.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weight_edit.adapters.factors import Factors
from weight_edit.adapters.limits import check_shared
from weight_edit.adapters.trial import check_applied, peft_refusals
from weight_edit.anatomy.narrow.small import build
from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import Source
from weight_edit.runtime.loading import read_config

PREFIX = "base_model.model."
_NAME = "default"
"""PEFT's name of an adapter that is given none."""


@dataclass(frozen=True)
class PeftLayout:
    """The files of an adapter.

    Attributes:
        config: the content of `adapter_config.json`.
        places: parameter -> where its tensors lie, without PEFT's prefix: the module that PEFT put there.
        inverse: parameters of stacks that PEFT takes for (experts, in, out).
        biases: module -> the full name of its own bias.
    """

    config: dict[str, Any]
    places: Mapping[str, str]
    inverse: frozenset[str]
    biases: Mapping[str, str]


def lay_out(
    made: Sequence[Factors],
    source: Source,
    *,
    embedding: str,
    whole: Collection[str] = (),
    trust_remote_code: bool = False,
    **settings: Any,
) -> PeftLayout:
    """The files of an adapter for a model, tried on a copy without numbers.

    Args:
        made: of every parameter that changes.
        source: of the model.
        embedding: the name of its embedding's weight.
        whole: modules whose weights are stored whole.
        **settings: of `adapter_config`.

    Raises:
        UnsupportedError: PEFT cannot adapt one of the modules, or would merge it wrongly.
    """
    read = read_config(source, trust_remote_code=trust_remote_code)
    by_name: list[str] = []
    while True:
        model = build(read, device="meta")
        by_name = by_name or [each.parameter for each in made if each.of_module and not _known(model, each.module)]
        config = adapter_config(made, by_name=by_name, whole=whole, **settings)
        check_shared(model, config, embedding)
        experts = {each.parameter: model.get_submodule(each.module) for each in made if each.stacked}
        found = _injected(model, config)
        missing = [each for each in made if each.parameter not in found]
        if not missing:
            break
        again = next((each.parameter for each in missing if each.parameter in by_name or not each.of_module), None)
        if again is not None:
            raise UnsupportedError(f"PEFT puts no adapter on '{again}'; use bake")
        by_name += [each.parameter for each in missing]
    if config["target_parameters"]:
        check_applied(read, config, trust_remote_code)
    inverse = frozenset(name for name, module in experts.items() if getattr(module, "is_transposed", False))
    names = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    biases = {_plain(name).removesuffix(".bias"): name for name in names}
    return PeftLayout(config, found, inverse, biases)


def _known(model: nn.Module, name: str) -> bool:
    """Whether PEFT has a layer for a module that does what the module does.

    Not for routers, which are classes of their own, nor for embeddings that look up other rows than they are given.
    """
    module = model.get_submodule(name)
    if isinstance(module, nn.Embedding):
        return type(module).forward is nn.Embedding.forward or hasattr(module, "embed_scale")
    return isinstance(module, nn.Linear | Conv1D)


def adapter_config(
    made: Sequence[Factors],
    *,
    rank: int,
    biased: bool,
    base: str,
    revision: str | None,
    by_name: Collection[str] = (),
    whole: Collection[str] = (),
) -> dict[str, Any]:
    """The content of `adapter_config.json`, as PEFT writes it for unscaled LoRA factors.

    Args:
        made: of every parameter that changes.
        rank: of the adapter: smaller factors are filled up with zeros.
        biased: whether biases are the adapter's own (PEFT's `lora_bias`), instead of changed ones of the modules.
        base, revision: the model that it is for.
        by_name: weights of modules that are adapted as parameters.
        whole: modules whose weights are stored whole.
    """
    from peft import LoraConfig

    modules = [each.module for each in made if each.of_module and each.parameter not in by_name]
    parameters = [each.parameter for each in made if not each.of_module or each.parameter in by_name]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=modules,
        target_parameters=parameters or None,
        modules_to_save=list(whole) or None,
        fan_in_fan_out=any(each.transposed and each.module in modules for each in made),
        bias="lora_only" if not biased and any(each.stored is not None for each in made) else "none",
        lora_bias=biased,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    ).to_dict()
    config["target_modules"] = modules
    return {key: getattr(value, "value", value) for key, value in config.items()}


def _injected(model: nn.Module, config: Mapping[str, Any]) -> dict[str, str]:
    """Parameter -> the module with its factors, in a model into which PEFT puts its layers."""
    from peft import LoraConfig, inject_adapter_in_model

    with peft_refusals(), warnings.catch_warnings():
        # They are about training and merging, and PEFT says them again when the adapter is loaded.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(LoraConfig(**config), model)
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and (_NAME in module.lora_A or _NAME in module.lora_embedding_A):
            found[f"{_plain(name)}.{getattr(module, 'parameter_name', 'weight')}"] = name
    return found


def _plain(name: str) -> str:
    """A module's or parameter's name without PEFT's layers around it."""
    return name.replace(".base_layer", "")


def tensors_of(made: Sequence[Factors], layout: PeftLayout) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, in float32."""
    rank, biased = int(layout.config["r"]), bool(layout.config["lora_bias"])
    tensors: dict[str, Tensor] = {}
    for each in made:
        place = PREFIX + layout.places[each.parameter]
        as_parameter = each.parameter in (layout.config["target_parameters"] or ())
        looked_up = each.embedding and not as_parameter
        names = ("lora_embedding_A", "lora_embedding_B") if looked_up else ("lora_A.weight", "lora_B.weight")
        pair = _padded(each.a, each.b, rank)
        if as_parameter:
            pair = _of_parameter(each, *pair, inverse=each.parameter in layout.inverse)
        tensors |= {f"{place}.{name}": tensor.contiguous() for name, tensor in zip(names, pair, strict=True)}
        if biased:
            tensors[f"{place}.lora_B.bias"] = each.b.new_zeros(len(each.b)) if each.bias is None else each.bias
        elif each.stored is not None and each.bias is not None:
            tensors[PREFIX + layout.biases[each.module]] = each.stored + each.bias
    return tensors


def _padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Both factors, with zeros up to the adapter's rank."""
    more = rank - a.shape[-2]
    return nn.functional.pad(a, (0, 0, 0, more)), nn.functional.pad(b, (0, more))


def _of_parameter(each: Factors, a: Tensor, b: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """PEFT's `lora_A` and `lora_B` of a parameter: all experts side by side.

    Rows of A have the rank within the expert, columns of B the expert within the rank.

    Args:
        inverse: whether PEFT has A on a matrix's first axis; else it has B there.
    """
    # `b a` is (out, in); A belongs to the inputs unless the parameter has these where PEFT has the outputs.
    if (each.transposed or each.embedding) != inverse:
        a, b = b.mT, a.mT
    return a.flatten(0, -2), b if b.ndim == 2 else b.permute(1, 2, 0).flatten(1)
