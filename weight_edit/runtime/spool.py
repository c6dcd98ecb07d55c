"""Tensors of one model kept in a file until the other model's are compared with them."""

import tempfile
import weakref
from types import TracebackType

import torch
from torch import Tensor

from weight_edit.errors import UsageError


class Spool:
    """Tensors by name and number, in an unnamed temporary file that goes with the object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="weight_edit.")  # noqa: SIM115 (closed in __exit__)
        # Where nobody opens it with `with`, as a whole run keeps one.
        weakref.finalize(self, self._file.close)
        self._places: dict[tuple[str, int], tuple[int, torch.Size, torch.dtype]] = {}

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether the spool holds logits of a name."""
        return any(kept == name for kept, _ in self._places)

    def keep(self, name: str, number: int, tensor: Tensor) -> None:
        """Store a tensor of any shape and dtype bit for bit: logits or hidden states of one prompt, say.

        Raises:
            UsageError: the disk is full.
        """
        begin = self._file.seek(0, 2)
        try:
            self._file.write(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise UsageError(
                f"logits cannot be kept in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a folder with "
                "more room, or take fewer prompts (`limit`)",
                option="limit",
            ) from error
        self._places[name, number] = begin, tensor.shape, tensor.dtype

    def rows(self, name: str, number: int) -> int:
        """The number of rows of a stored tensor."""
        return self._places[name, number][1][0]

    def get(self, name: str, number: int, rows: slice | None = None) -> Tensor:
        """The stored tensor, or some of its rows, on the CPU."""
        begin, shape, dtype = self._places[name, number]
        if rows is not None:
            first, behind, _ = rows.indices(shape[0])
            begin += first * shape[1:].numel() * dtype.itemsize
            shape = torch.Size((max(0, behind - first), *shape[1:]))
        raw = torch.empty((*shape, dtype.itemsize), dtype=torch.uint8)
        self._file.seek(begin)
        self._file.readinto(raw.numpy().reshape(-1).data)
        return raw.view(dtype).reshape(shape)
