"""The progress of a batch, told while it runs, and taken back where it has to be repeated."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from weight_edit.runtime.forward_pass import each_block
from weight_edit.runtime.loading import Model
from weight_edit.utils.progress import Bar, is_quiet


class Shares:
    """The share of a batch that the progress bar has counted; all of its rows in the end."""

    def __init__(self, drawn: Bar | None, rows: int) -> None:
        self._drawn, self._rows, self._told = drawn, rows, 0.0

    def moving(self, model: Model, blocks: int) -> AbstractContextManager[None]:
        """A context in which the bar moves with each block that begins: a batch may take minutes.

        Args:
            blocks: how many calls of blocks the batch takes.
        """
        if self._drawn is None or is_quiet():
            return nullcontext()
        return each_block(model, partial(self.add, 1 / max(1, blocks)))

    def add(self, share: float) -> None:
        """Advance by a share of the batch, at most to its end."""
        self._tell(min(share * self._rows, self._rows - self._told))

    def complete(self) -> None:
        """Advance to the end of the batch."""
        self._tell(self._rows - self._told)

    def take_back(self) -> None:
        """Take the batch's progress back: it is repeated."""
        self._tell(-self._told)

    def _tell(self, rows: float) -> None:
        self._told += rows
        if self._drawn is not None and rows:
            self._drawn.advance(rows)
