"""A key/value cache whose rows leave, join, and begin with the cache of a common prefix.

Rows stand at the right: the last column holds the last token of each, and what is left of a row's first token is
masked. So the distance of two columns is that of their tokens, which sliding windows and relative positions need, and
a step adds one column to all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from weight_edit.runtime.batching import Batch
from weight_edit.runtime.loading import Model
from weight_edit.runtime.passes import last_logits
from weight_edit.runtime.prefix import new_cache

_ROOM = 32
"""Columns that are kept free behind the last one: a step writes there, and copies nothing."""


class UnsuitedError(Exception):
    """A forward pass left the cache in a form from which rows cannot be taken."""


@dataclass
class RowCache:
    """Keys and values of several rows of tokens.

    Attributes:
        cache: what the model reads and writes.
        lengths: how many tokens of each row are in it.
        width: its columns, as many as the longest row has tokens; a sliding window holds the last of them.
    """

    cache: DynamicCache
    lengths: list[int]
    width: int

    @classmethod
    def empty(cls, model: Model, rows: int) -> "RowCache":
        """A cache of rows without tokens."""
        return cls(new_cache(model), [0] * rows, 0)

    @property
    def bytes_per_token(self) -> int:
        """The memory that a token of one row takes in all layers."""
        return sum(
            each.shape[1] * each.shape[3] * each.element_size()
            for layer in self.cache.layers
            if not isinstance(layer, DummyLayer)
            for each in (layer.keys, layer.values)
        )

    def forward(self, model: Model, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The logits behind the last of some more tokens of each row: (rows, vocabulary).

        Args:
            tokens: at least one of each row; rows with fewer than others must have none yet.

        Raises:
            UnsuitedError: the pass did not add its columns to every layer. The cache is of no use any more.
        """
        columns = max(map(len, tokens))
        ids = torch.tensor([[model.pad_id] * (columns - len(row)) + list(row) for row in tokens])
        lengths = [before + len(row) for before, row in zip(self.lengths, tokens, strict=True)]
        width = self.width + columns
        # Each column's index in its own row; it is negative left of the first token.
        places = torch.arange(width)[None] - (width - torch.tensor(lengths))[:, None]
        batch = Batch(
            ids=ids,
            mask=(places >= 0).long(),
            position_ids=places[:, -columns:].clamp(min=0),
            rows=tuple(range(len(tokens))),
            lengths=torch.tensor(lengths),
            side="left",
            cache=self.cache,
        )
        logits = last_logits(model, batch.to(model.device), 1)[:, -1]
        self.lengths, self.width = lengths, width
        self._check()
        return logits

    def clear(self, row: int) -> None:
        """Forget a row's tokens: it goes along as one that begins anew, until `joined` leaves it out."""
        self.lengths[row] = 0

    def shared(self, lengths: Sequence[int], columns: int) -> "RowCache":
        """The cache of several rows that begin as this one's only row does, before a pass over more columns.

        That pass reads the last `columns` tokens of each row. A row that is shorter than the longest takes less from
        this one, so that the pass reads tokens for all of them and padding for none.

        Args:
            lengths: the tokens of each row behind that pass; the longest has `width + columns`.
            columns: of that pass.
        """
        missing = torch.tensor([self.width + columns - length for length in lengths])
        layers = []
        for layer in self.cache.layers:
            if isinstance(layer, DummyLayer):
                layers.append(DummyLayer())
                continue
            # What a row lacks at the left is masked, so it may be any token's.
            chosen = (torch.arange(self.width)[None] - missing[:, None]).clamp(min=0).to(layer.keys.device)
            kept = [each[0][:, chosen].transpose(0, 1) for each in (layer.keys, layer.values)]
            layers.append(_layer(layer, [[each] for each in kept], self.width, columns))
        return RowCache(_of(layers), [max(0, length - columns) for length in lengths], self.width)

    @staticmethod
    def joined(parts: Sequence[tuple["RowCache", Sequence[int]]]) -> "RowCache":
        """The chosen rows of some caches as one cache, as narrow as they allow."""
        lengths = [part.lengths[row] for part, rows in parts for row in rows]
        width = max(lengths)
        layers = []
        for of_parts in zip(*(part.cache.layers for part, _ in parts), strict=True):
            if isinstance(of_parts[0], DummyLayer):
                layers.append(DummyLayer())
                continue
            tensors: list[list[Tensor]] = [[], []]
            for layer, (part, rows) in zip(of_parts, parts, strict=True):
                index = torch.tensor(list(rows), device=layer.keys.device)
                for kept, each in zip(tensors, (layer.keys, layer.values), strict=True):
                    kept.append(each if len(rows) == len(part.lengths) else each.index_select(0, index))
            layers.append(_layer(of_parts[0], tensors, width, _ROOM))
        return RowCache(_of(layers), lengths, width)

    def _check(self) -> None:
        for index, layer in enumerate(self.cache.layers):
            if isinstance(layer, DummyLayer):
                continue
            columns = min(self.width, layer.sliding_window - 1) if layer.is_sliding else self.width
            if not layer.is_initialized or layer.get_seq_length() != self.width:
                raise UnsuitedError(f"layer {index} of its cache does not hold what was read")
            if any(
                each.ndim != 4 or each.shape[0] != len(self.lengths) or each.shape[2] != columns
                for each in (layer.keys, layer.values)
            ):
                raise UnsuitedError(f"layer {index} of its cache is not by row and column")


class _Roomy(DynamicLayer):
    """A layer that keeps all columns, with room for more.

    Args:
        keys, values: (rows, heads, columns with the room, width of a head).
        columns: how many of the columns are filled.
    """

    def __init__(self, keys: Tensor, values: Tensor, columns: int, **options: Any) -> None:
        super().__init__(**options)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._begin, self._end = 0, columns
        self._hold(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add columns; keys and values as the pass is to see them."""
        count = key_states.shape[-2]
        if self._end + count > self._all_keys.shape[-2]:
            filled = self._end - self._begin
            keys, values = (_aligned([each], filled, count + _ROOM) for each in (self.keys, self.values))
            self._begin, self._end = 0, filled
            self._hold(keys, values)
        new = slice(self._end, self._end + count)
        self._all_keys[:, :, new], self._all_values[:, :, new] = key_states, value_states
        seen = slice(self._begin, new.stop)
        self._end = new.stop
        self._forget(count)
        self._hold(self._all_keys, self._all_values)
        return self._all_keys[:, :, seen], self._all_values[:, :, seen]

    def _forget(self, count: int) -> None:
        """Drop columns that no later token sees, after `count` were added: none."""

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self._all_keys, self._all_values = keys, values
        filled = slice(self._begin, self._end)
        self.keys, self.values = keys[:, :, filled], values[:, :, filled]


class _RoomyWindow(_Roomy, DynamicSlidingWindowLayer):
    """A layer that keeps the last columns of a sliding window, with room for more.

    Args:
        keys, values, columns: as of `_Roomy`.
        width: the columns that were read, those before the window too.
        sliding_window: the columns that a token sees, its own among them.
    """

    def __init__(self, keys: Tensor, values: Tensor, columns: int, *, width: int, sliding_window: int) -> None:
        super().__init__(keys, values, columns, sliding_window=sliding_window)
        self.cumulative_length = width

    def _forget(self, count: int) -> None:
        self.cumulative_length += count
        self._begin = max(self._begin, self._end - self.sliding_window + 1)


def _layer(like: Any, tensors: Sequence[Sequence[Tensor]], width: int, room: int) -> DynamicLayer:
    """A layer of the kind of `like`, from keys and from values (rows, heads, columns, ...) of several caches."""
    columns = min(width, like.sliding_window - 1) if like.is_sliding else width
    keys, values = (_aligned(each, columns, room) for each in tensors)
    if like.is_sliding:
        return _RoomyWindow(keys, values, columns, width=width, sliding_window=like.sliding_window)
    return _Roomy(keys, values, columns)


def _aligned(parts: Sequence[Tensor], columns: int, room: int) -> Tensor:
    """Rows of several tensors at the right of a number of columns, with room behind them."""
    rows = sum(part.shape[0] for part in parts)
    _, heads, _, size = parts[0].shape
    whole = parts[0].new_empty((rows, heads, columns + room, size))
    start = 0
    for part in parts:
        into = whole[start : start + part.shape[0]]
        filled = min(columns, part.shape[2])
        # Masked, but a weight of 0 times what memory happens to hold may be no number.
        into[:, :, : columns - filled] = 0
        into[:, :, columns - filled : columns] = part[:, :, part.shape[2] - filled :]
        start += part.shape[0]
    return whole


def _of(layers: Sequence[Any]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache
