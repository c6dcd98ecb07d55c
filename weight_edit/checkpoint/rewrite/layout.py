"""The files of a rewritten checkpoint as rows of pieces, planned before a byte is written."""

import hashlib
from dataclasses import dataclass

from weight_edit.checkpoint.manifest import Origin
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.version import __version__


@dataclass(frozen=True)
class Copy:
    """`size` bytes of the source's file `file` from `begin` on."""

    file: str
    begin: int
    size: int


@dataclass(frozen=True)
class New:
    """One part of an edited tensor."""

    edited: TensorWriter
    part: str
    size: int


@dataclass(frozen=True)
class Literal:
    """Bytes that are at hand."""

    data: bytes

    @property
    def size(self) -> int:
        """How many."""
        return len(self.data)


Piece = Copy | New | Literal


@dataclass(frozen=True)
class FilePlan:
    """One file of the output: its name, its pieces in order, and where it comes from (see `FileRecord`)."""

    name: str
    pieces: tuple[Piece, ...]
    origin: Origin

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(piece.size for piece in self.pieces)

    def reads(self, source: Checkpoint) -> frozenset[str]:
        """The files of the source that its bytes are made from."""
        names: set[str] = set()
        for piece in self.pieces:
            if isinstance(piece, Copy):
                names.add(piece.file)
            elif isinstance(piece, New):
                names.update(source.info(part).shard for part in piece.edited.source.parts)
        return frozenset(names)

    @property
    def copy_of(self) -> str | None:
        """The source's file that this one is a copy of; None when any byte is another's."""
        first = self.pieces[0] if self.pieces else None
        return first.file if isinstance(first, Copy) and self.origin == "copied" else None


@dataclass(frozen=True, kw_only=True)
class RewritePlan:
    """A rewrite that has been decided.

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
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def bytes_edited(self) -> int:
        """Those of them that are not copied from the source."""
        return sum(piece.size for file in self.files for piece in file.pieces if not isinstance(piece, Copy))

    @property
    def key(self) -> str:
        """Digest of all that determines the output; a rewrite resumes only under an equal one."""
        digest = hashlib.sha256(__version__.encode())
        for name in self.source.files:
            digest.update(f"{name}\0{self.source.identity(name)}\0".encode())
        for file in self.files:
            digest.update(f"{file.name}\0{file.origin}\0".encode())
            for piece in file.pieces:
                digest.update(_described(piece))
        return digest.hexdigest()


def _described(piece: Piece) -> bytes:
    """A piece for the key: all that decides its bytes."""
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
