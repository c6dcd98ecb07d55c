"""Stems: beginnings that some sequences share, each read once for all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from weight_edit.runtime.batching import PASS_COST
from weight_edit.runtime.loading import Model
from weight_edit.runtime.prefix import Before, narrowest


@dataclass(frozen=True, kw_only=True, eq=False)
class Stems:
    """The stems of a list of sequences.

    Attributes:
        tokens: of each stem.
        of: which of them each sequence begins with.
        held: keys and values of the stems where they were read before, whatever the edit: all else of a sequence, and
            nothing of its stem, is read under the edit, with padding behind it. None where stems are read under the
            edit of each sequence.
    """

    tokens: Sequence[Sequence[int]]
    of: Sequence[int]
    held: Before | None = None

    def pays(self, model: Model) -> bool:
        """Whether reading stems apart is possible, and cheaper than reading every sequence whole."""
        counts = Counter(self.of)
        saved = sum((count - 1) * len(self.tokens[stem]) for stem, count in counts.items())
        lengths = [len(self.tokens[stem]) for stem in counts]
        fits = model.offload is None and min(lengths, default=0) > 0 and max(lengths) <= narrowest(model)
        return fits and saved > PASS_COST
