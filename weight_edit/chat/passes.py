"""Forward passes over a conversation that grows, each over what the cache does not hold yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from weight_edit.chat.meter import Meter
from weight_edit.errors import FOREIGN_ERRORS
from weight_edit.runtime.batching import Batch, attempt, too_long
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.forward_pass import as_pass, last_logits, suited_threads
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.passes import check_tokens
from weight_edit.runtime.prefix import cache_argument, narrowest, new_cache, unsuited

_ALIKE = 0.1
"""The share of the largest logit by which a cache may change one: in bfloat16 rounding is a hundredth."""

_TRIED = 4
"""Tokens that are read one by one to see whether a cache can be relied on."""


@dataclass(frozen=True)
class Read:
    """The logits and the component of one forward pass.

    Attributes:
        logits: of the next token, (vocabulary,) float32.
        component: of the stream along the direction at the last token; None where none is measured.
    """

    logits: Tensor
    component: float | None


class CachedPasses:
    """The passes of one side of a chat: a model under hooks, with the keys and values of what it has read.

    What a later conversation shares with the earlier one is not read again. A cache that cannot be cut is read on token
    by token alone, and a model whose cache is its own affair reads all of it each time.

    Args:
        model: in memory, or on disk.
        hooks: the edit; what was read under other hooks is forgotten.
        meter: measures the stream; None measures nothing.
        cached: whether there is a cache; None is where the model has one that can be relied on.
    """

    def __init__(
        self,
        model: Model,
        hooks: Sequence[Hook] = (),
        meter: Meter | None = None,
        *,
        cached: bool | None = None,
    ) -> None:
        self.model = model
        self._edit, self._meter = tuple(hooks), meter
        self._cached = _keeps_cache(model) if cached is None else cached
        self._cuts_to = narrowest(model) if self._cached else 0
        self.forget()

    @property
    def on_parameters(self) -> bool:
        """Whether an edit changes parameters, which costs more than a pass: not to be done anew for each token."""
        return any(hook.where == "parameter" for hook in self._edit)

    def change(self, hooks: Sequence[Hook]) -> None:
        """Go on under other hooks."""
        self._edit = tuple(hooks)
        self.forget()

    def forget(self) -> None:
        """Drop what was read."""
        self._tokens: list[int] = []
        self._cache: Any = None

    def read(self, sequence: Sequence[int]) -> Read:
        """A pass that ends with the last token of a sequence.

        Raises:
            UsageError: a token without an embedding, more tokens than the model has positions, or memory runs out.
        """
        check_lengths(self.model, [len(sequence)])
        check_tokens(self.model, [sequence])
        batch = self._batch(list(sequence))
        try:
            found = attempt(lambda: as_pass(batch, self._run))
        except BaseException:
            # Some layers of the cache may have the tokens, and others not.
            self.forget()
            raise
        if found is None:
            self.forget()
            raise too_long(len(sequence))
        self._tokens = list(sequence) if self._cached else []
        return found[0]

    def _batch(self, sequence: list[int]) -> Batch:
        """The pass over the tokens of a sequence that the cache does not hold, the last one at least."""
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._tokens, sequence, strict=False)))
        known = min(known, len(sequence) - 1)
        if not self._goes_on(known, len(sequence)):
            known = 0
            self._cache = new_cache(self.model) if self._cached else None
        elif known < len(self._tokens):
            # Negative: so many tokens are taken off.
            self._cache.crop(known - len(self._tokens))
        ids = torch.tensor([sequence[known:]])
        batch = Batch(
            ids=ids,
            mask=torch.ones((1, len(sequence)), dtype=torch.int64),
            position_ids=torch.arange(known, len(sequence))[None],
            rows=(0,),
            lengths=torch.tensor([len(sequence)]),
            side="left",
            cache=self._cache,
        )
        return batch.to(self.model.device)

    def _goes_on(self, known: int, length: int) -> bool:
        """Whether a pass can go on behind the first `known` tokens of what was read."""
        if not known:
            return False
        if len(self._tokens) <= self._cuts_to:
            return True
        # A window has forgotten tokens, or the states of a recurrent layer cannot be wound back.
        return known == len(self._tokens) and (length == known + 1 or self._cuts_to > 0)

    def _run(self, batch: Batch) -> Read:
        hooks = self._edit if self._meter is None else (*self._edit, self._meter.hook(self.model))
        with torch.no_grad(), suited_threads(self.model), hooked(self.model.model, hooks):
            logits = last_logits(self.model, batch, 1)[0, -1].float()
        return Read(logits, None if self._meter is None else self._meter.take())


def _keeps_cache(model: Model) -> bool:
    """Whether the model takes a cache that transformers makes, and goes on from it as from the tokens themselves."""
    if unsuited(model) is None:
        return True
    own = model.model
    if own.is_remote_code() or own.config.is_encoder_decoder or not own._supports_default_dynamic_cache():
        return False
    return cache_argument(own) is not None and _goes_on_alike(model)


def _goes_on_alike(model: Model) -> bool:
    """Whether tokens read one by one behind a cache give the logits of all of them read at once.

    Tried with numbers: recurrent layers differ in what they make of a mask, some of them from the second token on.
    """
    tokens = [model.pad_id, *(token for token in range(8) if token < model.embeddings)]
    cached, whole = CachedPasses(model, cached=True), CachedPasses(model, cached=False)
    try:
        for end in range(len(tokens) - _TRIED, len(tokens) + 1):
            found, wanted = cached.read(tokens[:end]).logits, whole.read(tokens[:end]).logits
            if not bool((found - wanted).abs().max() < _ALIKE * wanted.abs().max()):
                return False
    except FOREIGN_ERRORS:
        return False
    return True
