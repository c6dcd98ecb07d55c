"""Logits compared: hidden states of two runs unembedded by their heads, a part of the vocabulary at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from weight_edit.errors import VerificationError
from weight_edit.runtime.head import Head
from weight_edit.runtime.offload.buffers import trim
from weight_edit.runtime.spool import Spool
from weight_edit.utils.progress import bar
from weight_edit.verification.faithfulness import ENTRIES, Agreement, Comparison
from weight_edit.verification.side import Run, changes_of

_TRIED = 2
"""Tokens on which it is tried whether a model's logits can be made in parts."""


class Pairs:
    """Runs whose logits are compared."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, Run, Run]] = []
        self._found: dict[str, Comparison] = {}

    def add(self, name: str, wanted: Run, given: Run) -> None:
        """Compare two runs; what is added under one name goes into one agreement."""
        self._pairs.append((name, wanted, given))
        self._found.setdefault(name, Comparison())

    @property
    def results(self) -> dict[str, Agreement]:
        """The agreement of each name, once they were compared."""
        return {name: comparison.result for name, comparison in self._found.items()}

    def compare(self, spool: Spool, heads: Mapping[str, Head], prompts: int) -> None:
        """Compare all runs on all prompts; each piece of each unembedding is read once.

        Args:
            spool: with the runs' hidden states.
            heads: by the names of their sides.
            prompts: how many there are.

        Raises:
            VerificationError: the two models have vocabularies of two sizes.
        """
        runs = list(dict.fromkeys(run for _, *both in self._pairs for run in both))
        widths = {head.width for head in heads.values()}
        if len(widths) > 1:
            raise VerificationError(f"the two models have {' and '.join(map(str, sorted(widths)))} logits; bake again")
        tried = {run.side: run for run in runs}
        by_parts = all(
            heads[side].by_parts(spool.get(run.kept, 0, slice(0, _TRIED)), getattr(torch, run.dtype))
            for side, run in tried.items()
        )
        parts: list[int | None] = [*range(len(heads[runs[0].side].parts))] if by_parts else [None]
        with bar("logits compared", len(parts) * prompts) as progress:
            for part in parts:
                # What is freed lies scattered, and would add up to more than a block.
                trim()
                weights: dict[tuple[str, str, int], list[Tensor]] = {}
                for number in range(prompts):
                    self._compare(spool, heads, runs, number, part=part, weights=weights)
                    progress.advance()

    def _compare(
        self,
        spool: Spool,
        heads: Mapping[str, Head],
        runs: list[Run],
        number: int,
        *,
        part: int | None,
        weights: dict[tuple[str, str, int], list[Tensor]],
    ) -> None:
        """Compare a part of the logits of one prompt.

        Args:
            weights: of this part, as far as other prompts have needed them.
        """
        own: dict[Run, list[Tensor]] = {}
        for run in runs:
            key = run.side, run.dtype, id(run) if run.changes or run.drawn else 0
            if run.drawn is not None or key not in weights:
                weights[key] = heads[run.side].weights(part, getattr(torch, run.dtype), changes_of(run.of(number)))
            own[run] = weights[key]
        head = heads[runs[0].side]
        tokens = spool.rows(runs[0].kept, number)
        # Parts differ in width, and the tokens at a time must not.
        count = max(1, ENTRIES // (head.width if part is None else head.parts[0].stop))
        for at in range(0, tokens, count):
            some = slice(at, at + count)
            logits = {}
            for run in runs:
                hidden = spool.get(run.kept, number, some)
                logits[run] = heads[run.side].logits(hidden, own[run], run.of(number)).cpu()
            for name, wanted, given in self._pairs:
                self._found[name].add_part((wanted, given, number, at), logits[wanted], logits[given])
