"""The verdicts on all differing tensors, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weight_edit.difference.evidence import VectorChange
from weight_edit.difference.model_parts import ModelParts, Part
from weight_edit.difference.numbers import ParameterChange
from weight_edit.difference.operators.fit import ROUNDINGS, OperatorFit
from weight_edit.difference.operators.oblique import WIDEST, oblique
from weight_edit.difference.operators.row_norms import RowProducts
from weight_edit.difference.pairs import Pair, Values, binade
from weight_edit.difference.samples import Sample, sample_of
from weight_edit.difference.tensor_verdict import TensorVerdict, folded_reader, judge, slim

LONGEST = 1 << 24
"""The longest vector (bias, gains) that is looked at."""


@dataclass(frozen=True, eq=False)
class Changed:
    """A differing tensor: the pair, after its comparison, and the figures of its difference."""

    pair: Pair
    change: ParameterChange


def vector_changes(changed: Sequence[Changed]) -> dict[str, VectorChange]:
    """The differing vectors, whole, but for those that are longer than `LONGEST`."""
    found = {}
    for each in changed:
        pair = each.pair
        if pair.a.rows * pair.slabs != 1 or pair.a.cols > LONGEST:
            continue
        block = next(iter(pair.blocks(0)))
        found[pair.name] = VectorChange(pair.name, block.a[0], block.b[0], binade(block.b[0]) * 2.0**-pair.bits)
    return found


def tensor_verdicts(
    changed: Sequence[Changed],
    parts: ModelParts,
    width: int | None,
    *,
    shared: Values,
    vectors: Mapping[str, VectorChange],
    advance: Callable[[], None] = lambda: None,
) -> list[TensorVerdict]:
    """The verdict on each differing matrix.

    Args:
        width: of the stream.
        shared: (d, k) orthonormal directions that the differences share; k may be 0.
        vectors: the differing vectors, for gains that were folded into what reads behind them.
        advance: called after each.
    """
    found = []
    for each in changed:
        if each.pair.a.rows > 1:
            verdict = _of_matrix(each, parts.parts.get(each.pair.name), width, shared, vectors)
            if verdict is not None:
                found.append(verdict)
        advance()
    return found


def _of_matrix(
    changed: Changed, part: Part | None, width: int | None, shared: Values, vectors: Mapping[str, VectorChange]
) -> TensorVerdict | None:
    pair = changed.pair
    able = pair.sides(width)
    known = part.side if part is not None else None
    # A tool that takes the wrong side of a square matrix edits that one.
    sides = [known, *(side for side in able if side != known)] if known in able else able
    verdicts: list[TensorVerdict] = []
    for side in sides or ["rows"]:
        if side is None:
            continue
        sample = sample_of(pair, side)
        if sample is None:
            continue
        own = changed.change.vectors.get(side, np.zeros((sample.width, 0)))
        given = _folded(sample, part, vectors) if side == known else sample
        if given is not sample:
            own = np.zeros((sample.width, 0))
        if given is not sample and given.square <= ROUNDINGS * given.noise:
            return folded_reader(given, part)
        turned = shared if side in able and shared.shape[1] else None
        verdicts.append(
            judge(given, part, own.astype(np.float64), turned, _row_products(pair, sample), edits=bool(sides))
        )
        # Vectors of zeros on one side are a coordinate of zeros on the other.
        if verdicts[-1].edit is not None or verdicts[-1].innocent in ("rounding", "quantisation", "scaling"):
            break
    if not verdicts:
        return None
    return next((v for v in verdicts if v.edit), next((v for v in verdicts if v.component), verdicts[0]))


def _folded(sample: Sample, part: Part | None, vectors: Mapping[str, VectorChange]) -> Sample:
    """The sample of a reader whose norm's gains became constant, with the gains multiplied into the first side."""
    gains = vectors.get(part.reads_behind or "") if part is not None else None
    if gains is None or not gains.constant or len(gains.a) != sample.width:
        return sample
    # Gains are the weight, or 1 and the weight: what leaves less of a difference is what the norm does.
    folded = [
        replace(sample, a=sample.a * ((gains.a + offset) / (gains.b + offset))[:, None])
        for offset in (0.0, 1.0)
        if (gains.b + offset).all()
    ]
    return min(folded, key=lambda each: each.square, default=sample)


def _row_products(pair: Pair, sample: Sample) -> RowProducts:
    """Products of a matrix's rows of unit length, over all vectors of the first matrix."""
    lengths = sample.lengths_a

    def products(v: Values) -> tuple[Values, float]:
        weights = v / lengths
        if sample.side == "columns":
            along = np.zeros(pair.a.cols)
            for block in pair.blocks(sample.slab):
                along += weights[block.first : block.last] @ block.a
            crossed = np.zeros(len(v))
            for block in pair.blocks(sample.slab):
                crossed[block.first : block.last] = block.a @ along
            return crossed / lengths, float(along @ along)
        crossed, square = np.zeros(len(v)), 0.0
        for block in pair.blocks(sample.slab):
            part = block.a @ weights
            crossed += part @ block.a
            square += float(part @ part)
        return crossed / lengths, square

    return products


@dataclass(frozen=True, eq=False)
class Erased:
    """The verdicts once an eraser was looked for.

    Attributes:
        verdicts: with the eraser as the edit of those writers that follow one.
        eraser: its L and R in the stream; None where there is none, or where it was made without regard to norms behind
            writers, so that it is none of the stream.
        note: why none was looked for, if so.
    """

    verdicts: Sequence[TensorVerdict]
    eraser: tuple[Values, Values] | None = None
    note: str | None = None


def with_eraser(verdicts: Sequence[TensorVerdict], changed: Sequence[Changed]) -> Erased:
    """The verdicts, with one eraser as the edit of those writers that follow it."""
    able = [v for v in verdicts if v.left is not None and (v.part is None or v.part.writes)]
    if len(able) <= len(verdicts) / 2:
        return Erased(verdicts)
    if able[0].left is not None and len(able[0].left) > WIDEST:
        note = f"whether one oblique eraser made them was not looked for: the stream is wider than {WIDEST}"
        return Erased(verdicts, note=note)
    gained = any(_gains(v) is not None for v in able)
    for behind in (False, True) if gained else (False,):
        found = _eraser(able, changed, behind)
        if found is None or not all(fit.exact for fit in found[0]):
            continue
        fits = {each.name: slim(fit) for each, fit in zip(able, found[0], strict=True)}
        told = [replace(v, edit=fits[v.name], rest="rounding", rank=None) if v.name in fits else v for v in verdicts]
        return Erased(told, None if gained and not behind else (found[1], found[2]))
    return Erased(verdicts)


def _eraser(
    able: Sequence[TensorVerdict], changed: Sequence[Changed], behind: bool
) -> tuple[list[OperatorFit], Values, Values] | None:
    pairs = {each.pair.name: each.pair for each in changed}
    width = 0 if able[0].left is None else len(able[0].left)
    # Half of the vectors of all tensors are to be twice as many as the numbers of R.
    least = 4 * width // len(able)

    def sample(number: int) -> Sample | None:
        found = sample_of(pairs[able[number].name], able[number].side, least)
        gains = _gains(able[number]) if behind else None
        return found if found is None or gains is None else found.scaled(gains)

    return oblique([_left(each, behind) for each in able], sample)


def _gains(verdict: TensorVerdict) -> Values | None:
    return None if verdict.part is None else verdict.part.gains


def _left(verdict: TensorVerdict, behind: bool) -> Values:
    assert verdict.left is not None
    left, gains = verdict.left.astype(np.float64), _gains(verdict)
    return left if gains is None or not behind else np.linalg.qr(left * gains[:, None])[0]
