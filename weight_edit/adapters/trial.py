"""Whether PEFT applies a parameter's factors wherever the model uses it, tried on a narrow copy.

PEFT puts them on a parameter while the module that has it runs. Where another module reads the parameter, nothing
happens until the adapter is merged.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.inputs.passes import text_run
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.errors import UnsupportedError, first_line
from weight_edit.proofs.architecture import MAX_LOGIT_DIFFERENCE
from weight_edit.utils.threads import one_thread


@contextmanager
def peft_refusals() -> Iterator[None]:
    """Within the context, what PEFT refuses, in any of the kinds of errors that it has for that, is unsupported.

    Raises:
        UnsupportedError: saying what PEFT says.
    """
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedError(f"an adapter cannot carry this edit: {first_line(error)}; use bake") from error


def check_applied(read: Any, config: Mapping[str, Any], trust_remote_code: bool = False) -> None:
    """Refuse an adapter that does something else before it is merged than after it.

    Args:
        read: the config of the real model.
        config: of the adapter.

    Raises:
        UnsupportedError: random factors on a small copy give other logits when they are merged.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    with one_thread(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = narrow_model(read, seed=1, trust_remote_code=trust_remote_code)
        # Of parameters alone: what is tied to a module would be merged with it, which is another question.
        settings = {"r": 2, "lora_alpha": 2, "target_modules": [], "modules_to_save": None, "bias": "none"}
        with peft_refusals():
            inject_adapter_in_model(LoraConfig(**copy.deepcopy({**config, **settings})), model)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        inputs = text_run(model.eval(), 3)
        served = _logits(model, inputs)
        with peft_refusals():
            for module in [each for each in model.modules() if isinstance(each, LoraLayer)]:
                module.merge()
        off = float((served - _logits(model, inputs)).abs().max())
    if not off < 10 * MAX_LOGIT_DIFFERENCE:
        raise UnsupportedError(
            f"on a small random copy an adapter of {', '.join(sorted(_kinds(config)))} gives logits that differ by "
            f"{off:.1e} from those of the same adapter merged, so that PEFT does not apply it everywhere; use bake"
        )


def _logits(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    found: Tensor = model(**inputs).logits
    return found.double()


def _kinds(config: Mapping[str, Any]) -> set[str]:
    return {".".join(name.split(".")[-2:]) for name in config["target_parameters"] or ()}
