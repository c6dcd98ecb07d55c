"""An edit whose directions and strengths are torch tensors, so that a loss is differentiable in them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit.anatomy.parts import Norm, Writer
from weight_edit.directions.finders.gradient import orthonormalised
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.loading import Model
from weight_edit.search.point import Point
from weight_edit.search.strengths import Strengths


def check_differentiable(model: Model) -> None:
    """Refuse a model whose strengths no gradient can reach.

    Raises:
        UnsupportedError: it is on disk, or a writer's output is that of no module.
    """
    if model.offload is not None:
        raise UnsupportedError(
            "gradients need the whole model in memory; search a model on disk without descents (`descents=0`)",
            option="descents",
        )
    for writer in model.anatomy.writers:
        if writer.role != "projector" and not writer.module:
            raise UnsupportedError(
                f"no module of {model.anatomy.architecture} gives what '{writer.weight}' writes, so that no gradient "
                "reaches its strength; search without descents (`descents=0`)",
                option="descents",
            )


class TrainableEdit:
    """Ablation hooks on every writer, differentiable in directions and strengths; they equal those of its `point`.

    A writer's output y becomes `y - s U^T (U y)`, where the rows of U are orthonormal and span the directions, each
    times the gain of the norm behind the writer where there is one (`edits.through_norm`).

    Attributes:
        rows: directions (k, d_model) float32, independent; they are orthonormalised wherever they are used.
        strengths: (2 n_layers + 1,) float32 in the order of `Strengths.vector`.

    Raises:
        UnsupportedError: a writer that no hook on an output reaches, or a model on disk; use the sampler.
    """

    def __init__(self, model: Model, rows: Tensor, strengths: Tensor, *, embeddings: str = "both") -> None:
        check_differentiable(model)
        self.model, self.rows, self.strengths = model, rows, strengths
        self._embeddings = embeddings
        self._writers = [writer for writer in model.anatomy.writers if writer.role != "projector"]
        self._gains = {
            name: model.parameter(name).detach().to(model.device)
            for writer in self._writers
            for name in _norm_parameters(writer.norm)
        }
        self._bases: dict[str, Tensor] = {}
        self.hooks = tuple(self._hooks())

    def begin(self) -> None:
        """Take up the present directions: to be called before every pass, where gradients are enabled or not."""
        stream = orthonormalised(self.rows).to(self.model.device)
        self._bases = {"": stream}
        for writer in self._writers:
            if writer.norm is not None and writer.weight not in self._bases:
                self._bases[writer.weight] = self._in_front(writer.norm, stream)

    def point(self, origin: str = "descent", facts: Mapping[str, Any] | None = None) -> Point:
        """The edit as it is now, ready to be baked."""
        return Point(
            rows=orthonormal_rows(self.rows.detach().cpu()).astype(np.float32),
            strengths=Strengths.from_vector(self.strengths.detach().cpu().double().numpy()),
            embeddings=self._embeddings,
            origin=origin,
            facts=facts or {},
        )

    def _hooks(self) -> list[Hook]:
        anatomy, found, hooked = self.model.anatomy, [], set[str]()
        shifted: set[str] = set()
        for writer in self._writers:
            # Parameters of one module, such as experts of two kinds, are hooked once, at its output.
            if writer.module not in hooked:
                hooked.add(writer.module)
                found.append(Hook(writer.module, "output", self._removing(_base(writer), _number(writer))))
            norm = writer.norm
            if norm is not None and norm.bias is not None and norm.bias not in shifted:
                shifted.add(norm.bias)
                found.append(Hook(norm.module, "output", self._shifting(norm.bias, _number(writer))))
        for writer in self._writers:
            if anatomy.tied and self._embeddings == "both" and writer.weight == anatomy.embedding_weight:
                # The map is symmetric, so that rows of the unembedding are mapped by mapping what it reads.
                found.append(Hook(anatomy.unembedding, "input", self._removing(_base(writer), 0)))
        return found

    def _removing(self, base: str, number: int) -> Callable[[Tensor], Tensor]:
        def remove(x: Tensor) -> Tensor:
            # In float32 as `LowRankMap.apply`, rounded once.
            work = x if x.dtype == torch.float64 else x.float()
            unit = self._bases[base].to(work.device, work.dtype)
            strength = self.strengths[number].to(work.device, work.dtype)
            return (work - strength * (work @ unit.T) @ unit).to(x.dtype)

        return remove

    def _shifting(self, bias: str, number: int) -> Callable[[Tensor], Tensor]:
        """What takes the component off a norm's bias, which goes to the stream as it is."""
        remove = partial(self._removing("", number), self._gains[bias])

        def shift(x: Tensor) -> Tensor:
            return x + (remove() - self._gains[bias]).to(x.device, x.dtype)

        return shift

    def _in_front(self, norm: Norm, rows: Tensor) -> Tensor:
        """Orthonormal rows in front of a norm for directions behind it; see `edits.through_norm.before_norm`."""
        if norm.weight is not None:
            rows = rows * (self._gains[norm.weight].to(rows.dtype) + norm.gain_offset)
        if norm.kind == "layer":
            rows = rows - rows.mean(dim=-1, keepdim=True)
        rows = orthonormalised(rows)
        return rows if norm.inner is None else self._in_front(norm.inner, rows)


def _norm_parameters(norm: Norm | None) -> list[str]:
    """The names of the parameters of a norm and of those in front of it."""
    if norm is None:
        return []
    return [name for name in (norm.weight, norm.bias) if name is not None] + _norm_parameters(norm.inner)


def _base(writer: Writer) -> str:
    """The name of the rows that a writer's output is projected by: the stream's own where no norm follows."""
    return "" if writer.norm is None else writer.weight


def _number(writer: Writer) -> int:
    """The place of a writer's strength in `Strengths.vector`."""
    if writer.layer is None:
        return 0
    return 1 + 2 * writer.layer + (writer.role != "attention")
