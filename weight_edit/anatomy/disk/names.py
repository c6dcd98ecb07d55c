"""The tensors on disk of each parameter, and those that no parameter accounts for."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from weight_edit.anatomy.disk.layout import Layout, Piece
from weight_edit.anatomy.parts import Anatomy
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.on_tensor import TensorEdit, same_edit
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.utils.name_patterns import general

_ROTATION = ("rope_freqs", "rope_factors_long", "rope_factors_short", "attn_rot_embd")
_IN_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_q_norm", "attn_k_norm", "attn_sinks", "attn_sub_norm")
_IN_MLP = ("ffn_gate", "ffn_up", "ffn_gate_exps", "ffn_up_exps", "ffn_gate_inp", "exp_probs_b", "ffn_sub_norm")
_BEFORE_WRITERS = frozenset({*_ROTATION, *(f"blk.*.{name}" for name in (*_ROTATION, *_IN_ATTENTION, *_IN_MLP))})
"""GGUF's names of what acts before a writer: an edit of the writers holds whatever it does."""


@dataclass(frozen=True)
class DiskNames:
    """The tensors on disk of each parameter.

    Names on disk are those that `checkpoint.quantized.formats.storage_of` takes.

    Attributes:
        layout: what transformers' mapping gave, with nothing missing and every shape as config.json says.
    """

    layout: Layout

    @property
    def extra(self) -> tuple[str, ...]:
        """Tensors that no parameter accounts for: old versions' buffers, MTP layers.

        They are kept as they are.
        """
        return self.layout.extra

    def __contains__(self, parameter: str) -> bool:
        """Whether a parameter is stored; a tied one may not be."""
        return parameter in self.layout.parameters

    def pieces(self, parameter: str) -> tuple[Piece, ...]:
        """The tensors that hold a parameter, in transformers' order; empty for a tied one."""
        return tuple(piece for run in self.layout.parameters.get(parameter, ()) for piece in run)

    def only(self, parameter: str) -> str:
        """The name of the single tensor that equals the parameter, axis for axis.

        Raises:
            UnsupportedError: it lies there in another way.
        """
        name, axes = self.whole(parameter)
        if axes != tuple(range(len(axes))):
            raise self._changed(parameter)
        return name

    def whole(self, parameter: str) -> tuple[str, tuple[int, ...]]:
        """The name of the single tensor that has a parameter's numbers, and of each axis of it the one there.

        Raises:
            UnsupportedError: it lies there in another way.
        """
        pieces = self.pieces(parameter)
        if len(pieces) == 1 and self._feeds[pieces[0].name] == 1:
            (piece,) = pieces
            axes = tuple(axis for axis in piece.axes if axis is not None)
            if sorted(axes) == list(range(len(piece.axes))):
                return piece.name, axes
        raise self._changed(parameter)

    def _changed(self, parameter: str) -> UnsupportedError:
        return UnsupportedError(
            f"'{parameter}' {self._lies(parameter)}, and is understood only where it lies unchanged"
        )

    def values(self, checkpoint: Checkpoint, parameter: str) -> NDArray[np.float64]:
        """The numbers of a small parameter, such as a norm's weight, as transformers loads them.

        Raises:
            UnsupportedError: it lies there in another way, or in a format that is not plain.
            UsageError: the file was cut or changed, or the numbers are not finite.
        """
        name = self.only(parameter)
        found = checkpoint.values(name)
        if not np.isfinite(found).all():
            raise UsageError(f"tensor '{name}' has NaN or infinite values; the source is damaged, fetch it again")
        return found + self.layout.shifts.get(parameter, 0.0)

    def edits_on_disk(self, parameter: str, axis: int) -> list[tuple[str, int]]:
        """(tensor, axis) on disk for an edit of one parameter along one axis.

        Raises:
            UnsupportedError: the axis does not lie whole in each of them, or other parameters lie in one of them too.
        """
        found = self._along(parameter, axis)
        if any(self._feeds[name] > 1 for name, _ in found):
            raise self._unable(parameter, axis)
        return found

    def laid(self, changes: Mapping[str, TensorEdit]) -> dict[str, TensorEdit]:
        """Edits of parameters as edits of tensors on disk.

        Parameters that share a tensor, such as queries, keys and values in one, are edited there where all of them go
        through the same map.

        Raises:
            UnsupportedError: an axis does not lie whole in a tensor, or what shares a tensor is edited differently.
        """
        found: dict[str, TensorEdit] = {}
        shares: Counter[str] = Counter()
        for parameter, change in changes.items():
            for name, axis in self._along(parameter, change.axis):
                edit = replace(change, axis=axis)
                known = found.setdefault(name, edit)
                if not same_edit(known, edit):
                    raise self._unable(parameter, change.axis)
                shares[name] += 1
        for parameter, change in changes.items():
            if any(shares[name] < self._feeds[name] for name, _ in self._along(parameter, change.axis)):
                raise self._unable(parameter, change.axis)
        return found

    def _along(self, parameter: str, axis: int) -> list[tuple[str, int]]:
        """(tensor, axis) on disk for one axis of a parameter."""
        found = []
        if parameter in self.layout.shifts:
            raise self._unable(parameter, axis)
        for name, along in dict.fromkeys((piece.name, piece.axes[axis]) for piece in self.pieces(parameter)):
            if along is None:
                raise self._unable(parameter, axis)
            found.append((name, along))
        if not found:
            raise UnsupportedError(f"the checkpoint has no tensor '{parameter}', so that it cannot be edited")
        return found

    def _unable(self, parameter: str, axis: int) -> UnsupportedError:
        return UnsupportedError(
            f"'{parameter}' {self._lies(parameter)}, so that it cannot be edited along its axis {axis}"
        )

    @cached_property
    def _feeds(self) -> Counter[str]:
        """Tensor on disk -> the number of parameters that it holds, wholly or in part."""
        return Counter(
            name for runs in self.layout.parameters.values() for name in {piece.name for run in runs for piece in run}
        )

    def _lies(self, parameter: str) -> str:
        pieces = self.pieces(parameter)
        if not pieces:
            return "is not stored on its own"
        number = f" and {len(pieces) - 1} more tensors" if len(pieces) > 1 else ""
        shift = self.layout.shifts.get(parameter)
        how = self.layout.how.get(parameter) if shift is None else f"{shift:+g} added"
        return f"lies in '{pieces[0].name}'{number} on disk" + (f" (read with {how})" if how else " in another form")


def names_on_disk(anatomy: Anatomy, layout: Layout) -> DiskNames:
    """The checked names on disk: every parameter exists once, in its shape.

    Args:
        anatomy: of the model that config.json describes.
        layout: of its checkpoint.

    Raises:
        UnsupportedError: a parameter is not there, so the layout is not one that is understood; or it is there twice.
        UsageError: a tensor has another shape than config.json says.
    """
    for first, second, *_ in layout.clashes:
        raise UnsupportedError(f"the checkpoint has both '{first}' and '{second}'; leave one of them out")
    disk = DiskNames(layout)
    if (
        not layout.container
        and anatomy.unembedding_weight in layout.missing
        and anatomy.embedding_weight not in layout.missing
    ):
        raise UnsupportedError(
            f"the checkpoint has no tensor '{anatomy.unembedding_weight}', and the config of {anatomy.architecture} "
            f"does not tie it to '{anatomy.embedding_weight}' (tie_word_embeddings); correct one of the two"
        )
    # Of a container that transformers reads in part, what an edit needs is enough; it is loaded whole or not at all.
    needed = _needed(anatomy) if layout.container else layout.missing.keys()
    for parameter, reason in layout.missing.items():
        if parameter not in needed:
            continue
        if layout.container:
            raise UnsupportedError(
                f"the {layout.container} file has no tensor for '{parameter}', which {anatomy.architecture} has, as "
                "transformers reads the file; edit the model's safetensors folder and convert that"
            )
        raise UnsupportedError(
            f"the checkpoint has no tensor '{parameter}', which {anatomy.architecture} has{reason and f' ({reason})'}; "
            "its layout on disk is not understood"
        )
    for parameter, shape in layout.mismatched.items():
        pieces = disk.pieces(parameter)
        wanted = anatomy.shapes[parameter]
        if layout.container:
            raise UnsupportedError(
                f"tensor '{pieces[0].name}' is {shape} in the {layout.container} file, of which transformers makes "
                f"no '{parameter}' of {wanted}; its layout is not understood"
            )
        if len(pieces) > 1:
            raise UnsupportedError(
                f"'{parameter}' is {wanted} by config.json, but '{pieces[0].name}' and the {len(pieces) - 1} tensors "
                f"like it make {shape}; fetch the checkpoint again"
            )
        raise UsageError(
            f"tensor '{pieces[0].name}' is {shape} on disk, but {wanted} by config.json; the two do not belong together"
        )
    return disk


def _needed(anatomy: Anatomy) -> set[str]:
    """The parameters that an edit of the writers reads or changes."""
    found = {anatomy.embedding_weight} | (set() if anatomy.tied else {anatomy.unembedding_weight})
    for writer in anatomy.writers:
        found |= {writer.weight, writer.bias or writer.weight}
        norm = writer.norm
        while norm is not None:
            found |= {name for name in (norm.weight, norm.bias) if name is not None}
            norm = norm.inner
    return found


def check_nothing_left_out(
    anatomy: Anatomy, disk: DiskNames, known: Collection[str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a tensor that is named like a block's writer but belongs to no parameter.

    In a GGUF file any that belongs to no parameter and is not known to act before a writer.

    Args:
        known: such tensors that are accounted for in another way.
        shapes: of the tensors on disk.

    Raises:
        UnsupportedError: names the tensor.
    """
    blocks = (writer for writer in anatomy.writers if writer.layer is not None)
    parameters = (name for writer in blocks for name in (writer.weight, writer.bias) if name is not None)
    kinds = {general(piece.name) for parameter in parameters for piece in disk.pieces(parameter)}
    for name in disk.extra:
        if name in known:
            continue
        if disk.layout.container and general(name).rpartition(".")[0] not in _BEFORE_WRITERS:
            # llama.cpp uses every tensor of a file that it loads, so that none is a leftover.
            raise UnsupportedError(
                f"the {disk.layout.container} file has a tensor '{name}' {list(shapes[name])}, which transformers does "
                f"not read and {anatomy.architecture} has no parameter for: what it does to the residual stream is not "
                "known; edit the model's safetensors folder and convert that"
            )
        if general(name) in kinds:
            raise UnsupportedError(
                f"the checkpoint has a tensor '{name}', which is named like what writes into the residual stream, but "
                f"{anatomy.architecture} has no such parameter by config.json; correct one of the two"
            )
