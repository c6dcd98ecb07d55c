"""What differs beside the matrices: biases that follow an edit, constants, and what no operator accounts for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weight_edit.difference.evidence import Evidence, VectorChange
from weight_edit.difference.model_parts import Part
from weight_edit.difference.operators.fit import ROUNDINGS
from weight_edit.difference.pairs import Values
from weight_edit.difference.tensor_verdict import TensorVerdict


@dataclass(frozen=True, eq=False, kw_only=True)
class Beside:
    """What differs beside the matrices.

    Attributes:
        constants: biases of writers that are new, or were zero, and are not zero: each adds a vector to the stream.
        following: vectors that the same edit explains, and gains that went into readers.
        rest: sentences on what no operator accounts for.
    """

    constants: tuple[str, ...]
    following: tuple[str, ...]
    rest: tuple[str, ...]


def beside(given: Evidence, edited: Sequence[TensorVerdict], rows: Values) -> Beside:
    """What differs beside the matrices.

    Args:
        edited: the matrices that were edited.
        rows: (k, d) the directions that they share; k may be 0.
    """
    constants = [name for name, values in given.new_vectors.items() if values.any() and _adds(given, name)]
    following, others = [], []
    into = [*edited, *(each for each in given.matrices if each.innocent == "folded")]
    for name, vector in given.vectors.items():
        if not vector.a.any() and _adds(given, name):
            constants.append(name)
        elif _folded(into, vector) or _follows(given, edited, rows, vector):
            following.append(name)
        else:
            others.append(name)
    # A bias of zeros is none.
    new = [n for n, v in given.new_vectors.items() if n not in constants and (v.any() or not n.endswith(".bias"))]
    rest = [
        (others, "vectors differ (biases, gains) and nothing explains them"),
        ([*given.added, *new], "tensors are in the second model alone"),
        (given.missing, "tensors are in the first model alone"),
        (given.resized, "tensors have other shapes, and were not compared"),
        (given.unread, "tensors differ and were not looked at, or have numbers that cannot be read or are not finite"),
    ]
    sentences = [f"Not accounted for: {len(names)} {said}: {listed(sorted(names))}." for names, said in rest if names]
    return Beside(constants=tuple(sorted(constants)), following=tuple(sorted(following)), rest=tuple(sentences))


def _adds(given: Evidence, name: str) -> bool:
    """Whether a vector is a bias of a writer by the anatomy, as wide as the stream."""
    return writer_of(given, name) is not None and len(_after(given, name)) == given.width


def writer_of(given: Evidence, bias: str) -> Part | None:
    """The writer that a bias belongs to; None where the anatomy knows of none."""
    own = given.parts.parts.get(bias)
    if own is not None:
        return own if own.bias and own.writes else None
    stem, dot, last = bias.rpartition(".")
    part = given.parts.parts.get(f"{stem}.weight") if dot and last == "bias" else None
    return part if part is not None and part.writes and part.role not in ("embedding", "position") else None


def _after(given: Evidence, name: str) -> Values:
    return given.new_vectors[name] if name in given.new_vectors else given.vectors[name].b


def added_vector(given: Evidence, name: str) -> Values:
    """What a constant adds to the stream, in front of the writer's norm."""
    return given.new_vectors[name] if name in given.new_vectors else given.vectors[name].b - given.vectors[name].a


def _folded(edited: Sequence[TensorVerdict], vector: VectorChange) -> bool:
    """Whether gains became one number, and went into readers behind them."""
    return vector.constant and any(each.part is not None and each.part.reads_behind == vector.name for each in edited)


def folded_gains(given: Evidence, edited: Sequence[TensorVerdict]) -> bool:
    """Whether any gains went into edited readers."""
    return any(_folded(edited, vector) for vector in given.vectors.values())


def _follows(given: Evidence, edited: Sequence[TensorVerdict], rows: Values, vector: VectorChange) -> bool:
    """Whether a bias, or a reader of one row, lost what the edit of its matrix takes off; nothing is fitted to it."""
    part = given.parts.parts.get(vector.name)
    stem = vector.name.rpartition(".")[0]
    own = [each for each in edited if each.name == f"{stem}.weight" or _same_place(part, each.part)]
    near = own or ([] if part is None or part.writes else list(edited))
    for each in near:
        fit = each.edit or each.component
        if fit is None or fit.strength is None or fit.rows.shape[1] != len(vector.a):
            continue
        for v in (fit.rule.columns, rows.T) if not own and len(rows) else (fit.rule.columns,):
            made = vector.a - fit.strength * (v @ (v.T @ vector.a))
            length = float(np.linalg.norm(made))
            kept = made * (float(np.linalg.norm(vector.a)) / length if length else 0.0)
            rests = [float(np.linalg.norm(vector.b - p) ** 2) for p in (made, kept)]
            changed = float(np.linalg.norm(vector.b - vector.a) ** 2)
            if min(rests) <= ROUNDINGS * vector.noise and min(rests) < changed / 2:
                return True
    return False


def _same_place(part: Part | None, other: Part | None) -> bool:
    if part is None or other is None or not part.bias:
        return False
    return (part.role, part.layer) == (other.role, other.layer)


def listed(names: Sequence[str]) -> str:
    """Three names, and how many more."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
