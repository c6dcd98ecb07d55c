"""A model whose weights stay on disk, built by transformers' own `from_pretrained`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.errors import UnsupportedError
from weight_edit.runtime.offload.conversion import Conversion, by_parameter, collect
from weight_edit.runtime.offload.offload import Offload, is_stack
from weight_edit.runtime.offload.reader import Shards

_COMPARED = 1 << 26
"""Bytes of two tensors that are compared at a time."""
_QUANTISED = ("fp8", "mxfp4")


class _Laid:
    """What was found of a checkpoint while transformers loads it."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.shards: Shards | None = None
        self.conversions: list[Conversion] = []

    def load(self, model: Any, files: Sequence[str], load_config: Any) -> tuple[Any, None]:
        """Give a model its weights without values; buffers have theirs.

        In place of `PreTrainedModel._load_pretrained_model`.
        """
        from transformers.core_model_loading import set_param_for_module
        from transformers.utils.loading_report import LoadStateDictInfo

        _check_quantizer(load_config.hf_quantizer)
        self.shards = Shards(files)
        self.conversions = collect(model, load_config, self.shards)
        empty = {"missing_keys": set(model.state_dict()), "conversion_errors": {}, "error_msgs": []}
        # Sets of names, some of which only newer releases have.
        told = LoadStateDictInfo(**{each.name: empty.get(each.name, set()) for each in fields(LoadStateDictInfo)})
        _tie_equal(model, self.conversions, self.shards)
        buffers = {name for name, _ in model.named_buffers()}
        for conversion in self.conversions:
            made = conversion.targets
            if buffers & made.keys():
                made = conversion.make(model, self.shards, self.device)
            for name, value in made.items():
                set_param_for_module(model, name, value, told, load_config.hf_quantizer)
        return told, None


_LAID: ContextVar[_Laid | None] = ContextVar("_LAID", default=None)


def lay_out(
    folder: Path, config: Any, *, device: str, blocks: Sequence[str], **options: Any
) -> tuple[PreTrainedModel, dict[str, Any], Offload | None]:
    """A model from a folder with its weights on disk, transformers' account of the loading, and what reads them.

    There is nothing to read them where tensors are missing, as the account says.

    Args:
        device: where it computes.
        blocks: the names of its blocks.
        options: of `from_pretrained`.

    Raises:
        UnsupportedError: a format or a device with which weights cannot stay on disk.
    """
    if device == "auto":
        raise UnsupportedError(
            "a model on disk computes on one device; pass `device='cpu'` or `device='cuda'` with `offload`",
            option=("device", "offload"),
        )
    laid = _Laid(device)
    token = _LAID.set(laid)
    try:
        with _replaced_loader():
            model, info = from_pretrained(folder, config, device_map=device, output_loading_info=True, **options)
    finally:
        _LAID.reset(token)
    if not type(model).__module__.startswith("transformers."):
        raise UnsupportedError(f"{folder} brings its own Python code, which needs its weights in memory")
    assert laid.shards is not None
    model.eval()
    if any(is_stack(parameter) for parameter in model.parameters()) and hasattr(model, "set_experts_implementation"):
        # Each expert by itself, where the usual way takes the whole stack; the rounding may differ.
        model.set_experts_implementation("eager")
    if info["missing_keys"]:
        return model, info, None
    offload = Offload(
        model,
        laid.shards,
        by_parameter(laid.conversions),
        device=laid.device,
        blocks=blocks,
        # A processor that computes has no time to read meanwhile; the system reads ahead into its cache by itself.
        ahead=laid.device.type == "cuda",
    )
    return model, info, offload


@contextmanager
def _replaced_loader() -> Iterator[None]:
    """Within the context, `from_pretrained` leaves the weights on disk where `_LAID` is set."""
    usual = PreTrainedModel.__dict__["_load_pretrained_model"]

    def load(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
    ) -> tuple[Any, Any]:
        laid = _LAID.get()
        if laid is None or state_dict is not None:
            # Another thread's.
            return usual.__func__(model, state_dict, checkpoint_files, load_config, expected_keys)
        return laid.load(model, checkpoint_files, load_config)

    PreTrainedModel._load_pretrained_model = staticmethod(load)
    try:
        yield
    finally:
        PreTrainedModel._load_pretrained_model = usual


def _check_quantizer(quantizer: Any) -> None:
    if quantizer is None:
        return
    method = str(
        getattr(quantizer.quantization_config.quant_method, "value", quantizer.quantization_config.quant_method)
    )
    dequantised = bool(getattr(quantizer.quantization_config, "dequantize", False))
    if method not in _QUANTISED or not (dequantised and quantizer.pre_quantized):
        raise UnsupportedError(
            f"weights quantised by {method} cannot stay on disk here; load the model without `offload`",
            option="offload",
        )


def _tie_equal(model: Any, conversions: list[Conversion], shards: Shards) -> None:
    """Settle which weights are tied, where the config ties two and the checkpoint has both.

    transformers ties them if they are equal, but cannot compare weights without values.
    """
    made = by_parameter(conversions)
    for target, source in list(model.all_tied_weights_keys.items()):
        if target not in made or source not in made:
            continue
        if _equal(_values(model, shards, made[target]), _values(model, shards, made[source])):
            del made[target].targets[target]
        else:
            model.all_tied_weights_keys.pop(target)


def _values(model: Any, shards: Shards, conversion: Conversion) -> Iterator[Tensor]:
    """The values of a conversion's parameter, some rows at a time."""
    (like,) = conversion.targets.values()
    count = max(1, _COMPARED * len(like) // max(1, like.nbytes))
    for begin in range(0, len(like), count):
        yield conversion.rows(model, shards, torch.device("cpu"), [(begin, min(begin + count, len(like)))])


def _equal(some: Iterator[Tensor], others: Iterator[Tensor]) -> bool:
    return all(
        a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip_longest(some, others)
    )
