"""Beginnings that sequences share, run once, and the caches that let their passes go on from there.

Most of a short prompt is its template and system prompt: of 43 tokens, 24 on Qwen. Their keys and values are those of
one row, which the layers of a pass expand over its rows as they need them. Likewise the continuations of one prompt go
on from the prompt's own row (`stems`).

Rows stand at the right, as in `row_cache`: the last column holds the last token of each, so that the distance of two
columns is that of their tokens. A row that is shorter than the longest takes less from the prefix and reads the rest of
it again, so that the pass reads tokens in all of its rows and padding in none.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from weight_edit.runtime.batching import PASS_COST, Batch
from weight_edit.runtime.loading import Model

LEAST = 8
"""The tokens from which on reading a common prefix apart pays."""

CACHE_ARGUMENTS = ("cache", "past_key_values")
"""How forward passes call the cache, the newest name first."""


def cache_argument(module: nn.Module) -> str | None:
    """The argument of a forward pass that takes the cache."""
    taken = inspect.signature(module.forward).parameters
    return next((name for name in CACHE_ARGUMENTS if name in taken), None)


def new_cache(model: Model) -> DynamicCache:
    """An empty cache of the model's layers."""
    return DynamicCache(config=model.model.config.get_text_config(decoder=True))


def unsuited(model: Model) -> str | None:
    """Why the model's cache cannot be taken apart by rows; None where it can.

    It can where every layer keeps keys and values by row and column: all of them, or the last ones of a sliding window.
    """
    own = model.model
    if own.is_remote_code():
        return "its code is its repository's own"
    if own.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if own._is_stateful or not own._supports_default_dynamic_cache():
        return "its cache is of a kind of its own"
    if cache_argument(own) is None or "attention_mask" not in inspect.signature(own.forward).parameters:
        return "its forward pass takes no cache or no mask"
    for layer in new_cache(model).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer):
            return f"its cache has layers of the kind {type(layer).__name__}"
        if isinstance(layer, DynamicSlidingWindowLayer) and layer.sliding_window < 2:
            return "its sliding window is one token long"
    return None


def known_layers(model: Model) -> bool:
    """Whether all layers of the model's cache are of transformers' own common kinds, whose states masks apply to."""
    return all(type(layer).__module__ == DynamicLayer.__module__ for layer in new_cache(model).layers)


def common_prefix(model: Model, sequences: Sequence[Sequence[int]], keep: Sequence[int]) -> list[int]:
    """The tokens that all sequences begin with and that are worth reading once; none where that is impossible.

    Args:
        keep: how many of each sequence's last tokens every pass has to read.
    """
    columns = zip(*sequences, strict=False)
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    rest = min((len(sequence) - last for sequence, last in zip(sequences, keep, strict=True)), default=0)
    # What a window has forgotten, no shorter prompt can take from it.
    count = min(len(common), rest, narrowest(model))
    if count < LEAST or count * (len(sequences) - 1) <= PASS_COST or cache_argument(model.model.base_model) is None:
        return []
    return common[:count]


def narrowest(model: Model) -> int:
    """The tokens that every layer's cache holds; 0 where it cannot be taken apart by rows."""
    if unsuited(model) is not None:
        return 0
    windows = [
        layer.sliding_window - 1 for layer in new_cache(model).layers if isinstance(layer, DynamicSlidingWindowLayer)
    ]
    return min(windows, default=2**31)


@dataclass(frozen=True, eq=False)
class Prefix:
    """Tokens that several sequences begin with, and where their keys and values come to lie.

    Attributes:
        tokens: the prefix.
        batch: the pass that reads it, a row for each variant.
    """

    tokens: list[int]
    batch: Batch

    @classmethod
    def of(cls, model: Model, tokens: list[int], variants: Sequence[Any]) -> "Prefix":
        """The prefix before its pass."""
        ids = torch.tensor([tokens] * len(variants), device=model.device)
        position_ids = torch.arange(len(tokens), device=model.device).expand_as(ids)
        batch = Batch(
            ids=ids,
            mask=torch.ones_like(ids),
            position_ids=position_ids,
            rows=tuple(range(len(variants))),
            lengths=torch.full((len(variants),), len(tokens), device=model.device),
            side="left",
            under=tuple(variants),
            cache=new_cache(model),
        )
        return cls(tokens, batch)

    def fills(self, start: int) -> bool:
        """Whether its pass left keys and values of all its tokens in every layer from a block on."""
        return filled(self.batch, start)

    def batch_behind(
        self,
        model: Model,
        sequences: Sequence[Sequence[int]],
        rows: Sequence[int],
        under: Any,
        *,
        keeps: bool = False,
    ) -> Batch:
        """The pass over what comes after the prefix.

        Args:
            sequences: whole; one for each row.
            rows: what the batch calls them.
            under: the variant of each.
            keeps: as in `Before.batch_behind`.
        """
        number = {id(variant): index for index, variant in enumerate(self.batch.under)}
        source = [number[id(variant)] for variant in under]
        return Before.of(self.batch).batch_behind(model, sequences, source, rows, under, keeps=keeps)


def filled(batch: Batch, start: int = 0) -> bool:
    """Whether a pass left keys and values of all its columns in every layer from a block on."""
    shape = len(batch.rows), batch.mask.shape[1]
    layers = [layer for layer in batch.cache.layers[start:] if not isinstance(layer, DummyLayer)]
    return all(
        layer.keys is not None and layer.keys.ndim == 4 and (len(layer.keys), layer.keys.shape[2]) == shape
        for layer in layers
    )


@dataclass(frozen=True, eq=False)
class Before:
    """What passes go on from: keys and values of rows whose last tokens lie in the last column.

    Attributes:
        layers: of a cache.
        width: its columns.
        lengths: the tokens of each row that are in it, at least one, int64 on the CPU.
    """

    layers: Sequence[Any]
    width: int
    lengths: Tensor

    @classmethod
    def of(cls, batch: Batch) -> "Before":
        """What a pass leaves in its cache, or will have left when it has run."""
        return cls(batch.cache.layers, batch.mask.shape[1], batch.lengths.cpu())

    def batch_behind(
        self,
        model: Model,
        sequences: Sequence[Sequence[int]],
        source: Sequence[int],
        rows: Sequence[int],
        under: Any,
        *,
        keeps: bool = False,
    ) -> Batch:
        """The pass over what comes after these rows.

        Args:
            sequences: whole; one for each row.
            source: which of these rows each begins with.
            rows: what the batch calls them.
            under: the variant of each.
            keeps: whether the pass leaves keys and values of whole sequences in its cache, for others to go on from.
        """
        lengths, index = torch.tensor([len(sequence) for sequence in sequences]), torch.tensor(list(source))
        held = self.lengths[index]
        columns = int((lengths - held).max())
        width = int(lengths.max()) - columns
        ids = torch.tensor([[model.pad_id] * (columns - len(some)) + list(some[-columns:]) for some in sequences])
        # Each column's index in its own row; it is negative left of the first token.
        places = torch.arange(width + columns)[None] - (width + columns - lengths)[:, None]
        # What a row lacks at the left is masked, so it may be any token's.
        first = (self.width - held)[:, None]
        taken = torch.maximum(first + places[:, :width], first)
        cache = DynamicCache()
        chosen = _Chosen(index, None if bool((taken == torch.arange(self.width)[:width]).all()) else taken, self.width)
        cache.layers = [_behind(layer, chosen, width, keeps) for layer in self.layers]
        return Batch(
            ids=ids,
            mask=(places >= 0).long(),
            position_ids=places[:, -columns:].clamp(min=0),
            rows=tuple(rows),
            lengths=lengths,
            side="left",
            under=tuple(under),
            cache=cache,
        )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """What rows take of another pass's keys and values.

    Attributes:
        source: its row, for each.
        columns: of each row; None where all take the first ones in order, as many as the pass is wide.
        width: the other pass's columns.
    """

    source: Tensor
    columns: Tensor | None
    width: int

    def of(self, before: Tensor, width: int) -> Tensor:
        """Those of one layer, (rows, heads, width, width of a head)."""
        if before.shape[-2] != self.width:
            raise RuntimeError(f"a cache holds {before.shape[-2]} of the {self.width} columns that were read")
        source = self.source.to(before.device)
        if self.columns is None:
            return before[source, :, :width]
        return before[source[:, None], :, self.columns.to(before.device)].transpose(1, 2)


class _Behind(DynamicLayer):
    """A layer whose rows begin with keys and values of another pass's.

    They are looked up when the layer is: where two passes take turns block by block, not before.
    """

    def __init__(self, before: DynamicLayer, chosen: _Chosen, width: int, keeps: bool, **options: Any) -> None:
        super().__init__(**options)
        self._before, self._chosen, self._width, self._keeps = before, chosen, width, keeps
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values as the pass is to see them: those from before, and its own."""
        assert self._before.keys is not None
        assert self._before.values is not None
        joined = self._joined(self._before.keys, key_states), self._joined(self._before.values, value_states)
        if self._keeps:
            self.keys, self.values = joined
        return joined

    def _joined(self, before: Tensor, own: Tensor) -> Tensor:
        return torch.cat([self._chosen.of(before, self._width), own], dim=-2)

    def get_seq_length(self) -> int:
        """The columns in front of a pass's own."""
        return self._width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The columns that a pass sees, and the first of them."""
        return self._width + query_length, 0


class _BehindWindow(_Behind, DynamicSlidingWindowLayer):
    """A layer of a sliding window that has forgotten nothing yet."""


def _behind(layer: Any, chosen: _Chosen, width: int, keeps: bool) -> Any:
    if isinstance(layer, DummyLayer):
        return DummyLayer()
    if isinstance(layer, DynamicSlidingWindowLayer):
        return _BehindWindow(layer, chosen, width, keeps, sliding_window=layer.sliding_window)
    return _Behind(layer, chosen, width, keeps)
