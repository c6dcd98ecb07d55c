"""The files of a rewritten checkpoint as sequences of pieces, planned before any writing."""

import hashlib
from dataclasses import dataclass

from weight_edit.checkpoint.manifest import Origin
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.version import __version__


@dataclass(frozen=True)
class Copy:
    """A piece copied from the source: `size` bytes of `file`, beginning at `begin`."""

    file: str
    begin: int
    size: int


@dataclass(frozen=True)
class New:
    """A piece computed by an edit: one part of an edited tensor."""

    edited: TensorWriter
    part: str
    size: int


@dataclass(frozen=True)
class Literal:
    """A piece given as bytes."""

    data: bytes

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.data)


Piece = Copy | New | Literal


@dataclass(frozen=True)
class FilePlan:
    """One file of the output: its name, its pieces in order, and its origin (see `FileRecord`)."""

    name: str
    pieces: tuple[Piece, ...]
    origin: Origin

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return sum(piece.size for piece in self.pieces)

    def reads(self, source: Checkpoint) -> frozenset[str]:
        """The source files that the file's bytes come from."""
        names: set[str] = set()
        for piece in self.pieces:
            if isinstance(piece, Copy):
                names.add(piece.file)
            elif isinstance(piece, New):
                names.update(source.info(part).shard for part in piece.edited.source.reads)
        return frozenset(names)

    @property
    def copy_of(self) -> str | None:
        """The source file that this file is a whole copy of; None if it is not."""
        first = self.pieces[0] if self.pieces else None
        return first.file if isinstance(first, Copy) and self.origin == "copied" else None


@dataclass(frozen=True, kw_only=True)
class RewritePlan:
    """A complete plan of an output.

    Attributes:
        source: the checkpoint that is read.
        files: every file of the output.
        edited, added: names of tensors; of a quantised tensor, of all its parts.
        removed: names of tensors that the output no longer has (scales of tensors that are stored plainly now).
        other_weights: copied weight files that transformers does not load and that no edit reaches.
    """

    source: Checkpoint
    files: tuple[FilePlan, ...]
    edited: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    other_weights: tuple[str, ...]

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def bytes_edited(self) -> int:
        """The bytes that are not copied from the source."""
        return sum(piece.size for file in self.files for piece in file.pieces if not isinstance(piece, Copy))

    @property
    def key(self) -> str:
        """A digest of everything that determines the output; a rewrite resumes only if it is equal."""
        digest = hashlib.sha256(__version__.encode())
        for name in self.source.files:
            digest.update(f"{name}\0{self.source.identity(name)}\0".encode())
        for file in self.files:
            digest.update(f"{file.name}\0{file.origin}\0".encode())
            for piece in file.pieces:
                digest.update(_described(piece))
        return digest.hexdigest()


def _described(piece: Piece) -> bytes:
    """Everything that determines a piece's bytes, for the key."""
    if isinstance(piece, Copy):
        return f"copy\0{piece.file}\0{piece.begin}\0{piece.size}\0".encode()
    if isinstance(piece, Literal):
        return b"bytes\0" + hashlib.sha256(piece.data).digest()
    edited = piece.edited
    kind = type(edited).__name__
    digest = hashlib.sha256(f"{kind}\0{piece.part}\0{edited.along_rows}\0{edited.source}\0{edited.target}\0".encode())
    digest.update(f"{edited.keep_norms}\0".encode())
    if edited.map is not None:
        for factor in (edited.map.left, edited.map.right, edited.map.constant, edited.gains):
            digest.update(b"none" if factor is None else factor.tobytes())
    return b"edit\0" + digest.digest()
