"""A reversal read from a pack, strictly: the plan of the base's files, made of the edited checkpoint and the pack."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from weight_edit.checkpoint.files import check_relative, open_regular, printable
from weight_edit.checkpoint.rewrite.layout import Copy, FilePlan, Literal, New, Piece, RewritePlan
from weight_edit.checkpoint.rewrite.rewrite import MOST_LANES
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files, processors
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Matrix, Storage
from weight_edit.errors import UsageError, VerificationError
from weight_edit.packs.compression import decoded, expanded, length_of
from weight_edit.packs.file import Pack
from weight_edit.packs.prediction import Factors, of_planes
from weight_edit.packs.restored import Guess, Payloads, RawPart, RestoredTensor
from weight_edit.packs.reversal import guessed_storage
from weight_edit.utils.progress import bar

_MOST_LITERAL = 1 << 26
_MOST_PIECES = 10_000_000
_MOST_FACTORS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class WayBack:
    """A pack's reversal, opened; a context that closes its file.

    Attributes:
        pack: whose it is.
        edited: the edited checkpoint.
    """

    pack: Pack
    edited: Checkpoint
    _file: BinaryIO
    _stored: TensorInfo

    @classmethod
    def open(cls, pack: Pack, edited: Checkpoint) -> "WayBack":
        """The way back from an edited checkpoint.

        Raises:
            UsageError: the pack has none, or its file cannot be read.
        """
        if pack.stored is None or pack.reversal is None:
            raise UsageError(f"{pack.name} has no way back")
        return cls(pack=pack, edited=edited, _file=open_regular(pack.path.resolve()), _stored=pack.stored)

    def __enter__(self) -> "WayBack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def plan(self) -> RewritePlan:
        """The plan of every file of the base.

        Raises:
            UsageError: an account that is none of ours, or that does not fit the edited checkpoint.
        """
        try:
            return self._plan(self.pack.reversal or {})
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._strange() from error

    def check(self, digests: Mapping[str, str]) -> None:
        """Restore every tensor once, as `undo` does, and hold it to the SHA-256 of the base's bytes.

        Raises:
            UsageError: as `plan`; or a payload that is refused.
            VerificationError: a tensor is not the base's.
        """
        new = {piece.part: piece for file in self.plan().files for piece in file.pieces if isinstance(piece, New)}
        total = sum(piece.size for piece in new.values())
        with Files(self.edited) as files, bar("reading the pack back", total, unit="bytes") as progress:
            for name, piece in new.items():
                found = hashlib.sha256()
                for block in piece.edited.blocks(name, files.tensor):
                    found.update(block.data)
                    progress.advance(len(block))
                if digests.get(name) != found.hexdigest():
                    raise VerificationError(
                        f"{self.pack.name} would not give the base's {printable(name)!r} back; nothing was written"
                    )

    def _plan(self, said: Mapping[str, Any]) -> RewritePlan:
        if not len(said["factors"]) <= len(said["tensors"]) <= len(self.edited.tensors):
            raise self._strange()
        if len({entry["name"] for entry in said["tensors"]}) != len(said["tensors"]):
            raise self._strange()
        size = sum(8 * _whole(entry["width"]) * (_whole(entry["rank"]) + 2) for entry in said["factors"])
        if size > _MOST_FACTORS:
            raise self._strange()
        factors = [self._factors(entry) for entry in said["factors"]]
        tensors = [self._tensor(entry, factors) for entry in said["tensors"]]
        if sum(len(file["pieces"]) for file in said["files"]) > _MOST_PIECES:
            raise self._strange()
        literal = sum(_whole(piece[3]) for file in said["files"] for piece in file["pieces"] if piece[0] == "bytes")
        if literal > 2 * _MOST_LITERAL:
            raise self._strange()
        files = []
        for file in said["files"]:
            pieces = tuple(self._piece(piece, tensors) for piece in file["pieces"])
            name = check_relative(file["name"], self.pack.name)
            first = pieces[0] if len(pieces) == 1 else None
            whole = isinstance(first, Copy) and first.begin == 0 and first.size == self.edited.file_size(first.file)
            files.append(FilePlan(name, pieces, "copied" if whole else "edited"))
        if len({file.name for file in files}) != len(files):
            raise self._strange()
        return RewritePlan(
            source=self.edited,
            files=tuple(files),
            edited=tuple(each.part for each in tensors),
            added=(),
            removed=(),
            other_weights=(),
        )

    def _strange(self) -> UsageError:
        return UsageError(
            f"{self.pack.name}: its account of the way back is none of ours, or does not fit this edited checkpoint"
        )

    def _bytes(self, at: int, length: int) -> bytes:
        """Some bytes of the tensor `reversal`."""
        if at < 0 or length < 0 or at + length > self._stored.size:
            raise self._strange()
        raw, done = bytearray(length), 0
        while done < length:
            got = os.preadv(self._file.fileno(), [memoryview(raw)[done:]], self._stored.begin + at + done)
            if not got:
                raise UsageError(f"{self.pack.name} ends early; get it again")
            done += got
        return bytes(raw)

    def _expanded(self, at: int, length: int, most: int) -> bytes:
        if length > most + (most >> 4) + 1024:
            raise self._strange()
        return expanded(self._bytes(at, length), most, f"{self.pack.name}: its way back") if length else b""

    def _piece(self, said: Any, tensors: list[RestoredTensor]) -> Piece:
        if said[0] == "tensor":
            number = _whole(said[1])
            return New(tensors[number], tensors[number].part, tensors[number].size)
        if said[0] == "bytes":
            _, at, length, size = said
            if _whole(size) > _MOST_LITERAL:
                raise self._strange()
            raw = self._expanded(_whole(at), _whole(length), size)
            if len(raw) != size:
                raise self._strange()
            return Literal(raw)
        kind, file, begin, size = said
        name = check_relative(file, self.pack.name)
        if (
            kind != "copy"
            or name not in self.edited.files
            or _whole(begin) + _whole(size) > self.edited.file_size(name)
        ):
            raise self._strange()
        return Copy(name, begin, size)

    def _factors(self, said: Mapping[str, Any]) -> Factors:
        width, rank = _whole(said["width"]), _whole(said["rank"])
        more = (said["constant"] is True) + (said["gains"] is True)
        size = 8 * width * (rank + more)
        if rank > width:
            raise self._strange()
        raw = self._expanded(_whole(said["at"]), _whole(said["length"]), size)
        found = of_planes(raw, 8).reshape(width, rank + more)
        if not np.isfinite(found).all():
            raise self._strange()
        return Factors(
            left=found[:, :rank],
            constant=found[:, rank] if said["constant"] is True else None,
            inverse_gains=found[:, -1] if said["gains"] is True else None,
        )

    def _tensor(self, said: Mapping[str, Any], factors: list[Factors]) -> RestoredTensor:
        info = self.edited.info(said["name"])
        at, length = _whole(said["at"]), _whole(said["length"])
        if info.size != said["size"] or at + length > self._stored.size:
            raise self._strange()
        storage: Storage = RawPart(info.name, info.dtype, info.shape)
        guess = None
        if "axis" in said:
            axis = _whole(said["axis"])
            storage = guessed_storage(self.edited, info.name, axis)
            guess = Guess(
                storage=storage,
                along_rows=Matrix.of(storage.shape, axis).along_rows,
                factors=factors[_whole(said["factors"])],
                keeps_lengths=said["lengths"] is True,
            )
            wide = storage.rows if guess.along_rows else storage.cols
            if guess.factors.width != wide or storage.name != info.name:
                raise self._strange()
        return RestoredTensor(
            source=storage,
            target=storage,
            part=info.name,
            size=info.size,
            guess=guess,
            payloads=lambda: self._payloads(at, at + length),
        )

    def _payloads(self, at: int, end: int) -> Payloads:
        def take(most: int) -> bytes:
            nonlocal at
            length, by_lzma = length_of(self._bytes(at, 4))
            begin, at = at + 4, at + 4 + length
            if at > end:
                raise self._strange()
            if length > most + (most >> 4) + 1024:
                raise self._strange()
            read = expanded if by_lzma else decoded
            return read(self._bytes(begin, length), most, f"{self.pack.name}: its way back") if length else b""

        return take


def lanes(plan: RewritePlan) -> int:
    """Files written at a time: not more than have restored tensors, so that none is made ahead and held in memory."""
    restored = sum(any(isinstance(each, New) for each in file.pieces) for file in plan.files)
    return max(1, min(MOST_LANES, processors(), restored))


def _whole(number: Any) -> int:
    """A whole number that is not negative.

    Raises:
        ValueError: something else.
    """
    if type(number) is not int or number < 0:
        raise ValueError(number)
    return number
