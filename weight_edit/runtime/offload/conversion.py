"""The parameters of a model and the tensors they are made from, by transformers' own loader.

The steps are those of `convert_and_load_state_dict_in_model` in `transformers.core_model_loading`. There each parameter
is made at once; here all are made without values first, which shows names, shapes and dtypes, and with values whenever
they are needed.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.disk.conversion import parameters_of
from weight_edit.runtime.offload.buffers import empty
from weight_edit.runtime.offload.reader import Runs, Shards

PIECE = 1 << 26
"""Bytes of a parameter that are converted at a time, where it can be made in pieces."""

_DEQUANTISING = ("Fp8Dequantize", "Mxfp4Dequantize")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk, and the dtype to which the loader casts it first; None leaves it as it is."""

    name: str
    dtype: torch.dtype | None


@dataclass(eq=False, kw_only=True)
class Conversion:
    """One of the loader's conversions, which makes one or more parameters.

    Attributes:
        first: the parameter that names it.
        transform: transformers' `WeightConverter` or `WeightRenaming`.
        sources: pattern -> the tensors it collects.
        targets: parameter -> what it is, without values.
    """

    first: str
    transform: Any
    sources: dict[str, list[StoredTensor]] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def names(self) -> Iterator[str]:
        """The tensors on disk that it reads."""
        return (source.name for group in self.sources.values() for source in group)

    def make(self, model: Any, shards: Shards, device: torch.device) -> dict[str, Tensor]:
        """The parameters with their values, on `device`."""
        like = next(iter(self.targets.values())) if len(self.targets) == 1 else None
        if like is None or not self._in_pieces or len(like) < 2:
            return self._convert(model, lambda source: self._get(shards, source, device))
        # The pieces of a mixture, say, together with what is stacked and joined of them would be three times as large.
        out = empty(like.shape, like.dtype) if device.type == "cpu" else torch.empty_like(like, device=device)
        count = max(1, PIECE * len(like) // max(1, like.nbytes))
        for begin in range(0, len(like), count):
            part = self.rows(model, shards, device, [(begin, min(begin + count, len(like)))])
            out[begin : begin + len(part)] = part
        return {next(iter(self.targets)): out}

    def rows(self, model: Any, shards: Shards, device: torch.device, runs: Runs) -> Tensor:
        """Some rows of its one parameter, along the first axis."""
        if not self._by_rows:
            (made,) = self.make(model, shards, device).values()
            return torch.cat([made[begin:end] for begin, end in runs])
        if self._listed:
            parts = [self._convert(model, lambda s: self._get(shards, s, device), run) for run in runs]
            values = [next(iter(part.values())) for part in parts]
            return values[0] if len(values) == 1 else torch.cat(values)
        (made,) = self._convert(model, lambda source: self._get(shards, source, device, runs)).values()
        return made

    def describe(self, model: Any, shards: Shards) -> dict[str, Tensor]:
        """Find out what the conversion makes, without values."""
        self.targets = self._convert(model, lambda s: _cast(shards.like(s.name), s.dtype, torch.device("meta")))
        self._by_rows, self._listed = False, False
        if len(self.targets) == 1:
            ((_, like),) = self.targets.items()
            self._by_rows, self._listed = self._separable(like, shards)
        return self.targets

    @property
    def _in_pieces(self) -> bool:
        return self._by_rows and hasattr(self.transform, "operations")

    def _separable(self, like: Tensor, shards: Shards) -> tuple[bool, bool]:
        """Whether rows can be made from a part of the sources, and whether that is a part of each list of them."""
        operations = list(getattr(self.transform, "operations", ()))
        if not operations:
            return like.ndim > 0, False
        if like.ndim == 0:
            return False, False
        shapes = {pattern: [shards.like(s.name).shape for s in group] for pattern, group in self.sources.items()}
        kinds = [type(operation).__name__ for operation in operations]
        if kinds[0] in _DEQUANTISING:
            del operations[0], kinds[0]
        if "MergeModulelist" in kinds[:1] and operations[0].dim == 0:
            listed = all(len(group) == len(like) for group in shapes.values())
            return listed and all(_spares_rows(operation, like.ndim) for operation in operations[1:]), True
        alone = all(len(group) == 1 and group[0][:1] == like.shape[:1] for group in shapes.values())
        # Scales of two-dimensional weights are of blocks of rows.
        plain = len(shapes) == 1 or like.ndim == 3
        return alone and plain and all(_spares_rows(operation, like.ndim) for operation in operations), False

    def _get(self, shards: Shards, source: StoredTensor, device: torch.device, runs: Runs | None = None) -> Tensor:
        return _cast(shards.read(source.name, runs), source.dtype, device)

    def _convert(
        self, model: Any, get: Callable[[StoredTensor], Tensor], part: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        # The transform collects within itself, and a block is fetched while another one is.
        with self._lock, torch.no_grad():
            for pattern, group in self.sources.items():
                chosen = group if part is None else group[part[0] : part[1]]
                self.transform.collected_tensors[pattern] = [_Later(get, source) for source in chosen]
            made = self.transform.convert(self.first, model=model, config=model.config)
        values = {name: value[0] if isinstance(value, list) else value for name, value in made.items()}
        return {name: value.detach() for name, value in values.items()}


class _Later:
    """A tensor that is read when the loader calls for it."""

    def __init__(self, get: Callable[[StoredTensor], Tensor], source: StoredTensor) -> None:
        self._get, self._source = get, source

    def __call__(self) -> Tensor:
        return self._get(self._source)


def _spares_rows(operation: Any, dimensions: int) -> bool:
    """Whether an operation leaves the first axis alone, so that rows can be converted apart."""
    kind = type(operation).__name__
    if kind == "Concatenate":
        return operation.dim % dimensions != 0
    if kind == "Transpose":
        return not operation.check_dims and 0 not in (operation.dim0 % dimensions, operation.dim1 % dimensions)
    return False


def _cast(tensor: Tensor, dtype: torch.dtype | None, device: torch.device) -> Tensor:
    return tensor.to(device=device, dtype=dtype)


def collect(model: Any, load_config: Any, shards: Shards) -> list[Conversion]:
    """The conversions that make a model's parameters and persistent buffers, described.

    Args:
        model: on the meta device, as `from_pretrained` has built it.
        load_config: transformers' `LoadStateDictConfig`.
    """
    from transformers.core_model_loading import WeightRenaming, build_glob_alternation

    state = model.state_dict()
    plan = load_config.dtype_plan or {}
    kept, by_group, _ = build_glob_alternation(list(plan)) if plan else (None, {}, {})
    quantizer = load_config.hf_quantizer
    found: dict[str, Conversion] = {}
    for name, renamed, pattern, converter in parameters_of(
        model, load_config.weight_mapping or [], shards.names, state
    ):
        if renamed not in found:
            transform = WeightRenaming(name, renamed) if converter is None else deepcopy(converter)
            found[renamed] = Conversion(first=renamed, transform=transform)
        entry = found[renamed]
        dtype = load_config.dtype
        planned = kept.search(renamed) if kept is not None else None
        if planned is not None:
            dtype = plan[by_group[planned.lastgroup]]
        elif state[renamed].dtype != dtype:
            dtype = state[renamed].dtype
        if quantizer is not None:
            dtype = quantizer.get_new_dtype(entry.transform, shards.like(name), dtype)
        entry.sources.setdefault(name if pattern is None else pattern, []).append(StoredTensor(name, dtype))
    for entry in found.values():
        entry.describe(model, shards)
    return list(found.values())


def by_parameter(conversions: list[Conversion]) -> Mapping[str, Conversion]:
    """Parameter -> the conversion that makes it."""
    return {name: conversion for conversion in conversions for name in conversion.targets}
