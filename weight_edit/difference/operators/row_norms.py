"""Ablation that works on rows of unit length (p-e-w/heretic's row normalisation).

With the lengths r of A's rows and `N = A / r`: "pre" is `B = A - s (r v) (v^T N)`; "full" gives the rows of
`N - s v v^T N` the lengths r again; and what is published of that is often its difference from A, cut to a few ranks.
"""

from collections.abc import Callable

import numpy as np

from weight_edit.difference.operators.fit import Rule, leading
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

_ROUNDS = 24
_CUT = 8
UNIT_ROWS = "ablation of unit rows"
FULL = "norm-preserving ablation (rows)"

RowProducts = Callable[[Values], tuple[Values, float]]
"""`products(v)`: with `c = v^T N` over all vectors, `N c` and |c|^2."""


def ablation_of_unit_rows(sample: Sample) -> Rule | None:
    """The rule of "pre": an ablation of rows of unit length, which get their lengths back."""
    one = sample.of_first_matrix()
    found = _unit_rows(one)
    if found is None:
        return None
    rows, lengths = found
    v = leading(one.change, 1)[0][:, 0] / lengths
    v /= np.linalg.norm(v)
    made = np.outer(lengths * v, v @ rows)
    square = float(np.vdot(made, made))
    strength = -float(np.vdot(one.change, made)) / square if square else 0.0
    # Of one rank it is what it is; of a few more, what is left of keeping rows' lengths once that is cut to them.
    rank = int(np.count_nonzero(leading(one.change, _CUT + 1)[1] > one.edge))
    name = FULL if 1 < rank <= _CUT else UNIT_ROWS

    def predict(given: Sample) -> Values:
        return given.a - strength * np.outer(lengths * v, (v / lengths) @ given.a)

    return Rule(operator=name, columns=v[:, None], strength=strength, predict=predict, facts={"ranks": rank})


def row_norms_kept(sample: Sample) -> Rule | None:
    """The rule of "full": unit rows are ablated, and brought back to their lengths."""
    one = sample.of_first_matrix()
    found = _unit_rows(one)
    if found is None:
        return None
    rows, lengths = found
    target = one.b / lengths[:, None]
    v = leading(target - rows, 1)[0][:, 0]
    along = v @ rows
    factors = np.ones(len(v))
    for _ in range(_ROUNDS):
        factors, slopes = _regressed(target, rows, along)
        rest = target - factors[:, None] * rows
        left = leading(rest, 1)[0][:, 0]
        along = left @ rest
        v = left / factors
    v, along = v / np.linalg.norm(v), v / np.linalg.norm(v) @ rows
    factors, slopes = _regressed(target, rows, along)
    weights = factors * v
    strength = -float(slopes @ weights) / float(weights @ weights)
    # Rows longer or shorter by what a plain ablation would have made of them were not brought back.
    mapped = rows - strength * np.outer(v, along)
    factors = np.einsum("ij,ij->i", target, mapped) / np.maximum(np.einsum("ij,ij->i", mapped, mapped), 1e-300)
    kept = one.lengths_b / lengths - 1
    plain = 1 / factors - 1
    if np.linalg.norm(kept) > 0.25 * np.linalg.norm(plain):
        return None

    def predict(given: Sample) -> Values:
        units = given.a / lengths[:, None]
        return (units - strength * np.outer(v, v @ units)) * (factors * lengths)[:, None]

    return Rule(operator=FULL, columns=v[:, None], strength=strength, predict=predict)


def row_norms_kept_in_few_ranks(sample: Sample, products: RowProducts, limit: int = _CUT) -> Rule | None:
    """The rule of "full" whose difference was cut to the largest few singular values."""
    one = sample.of_first_matrix()
    found = _unit_rows(one)
    if found is None:
        return None
    rows, lengths = found
    left, values = leading(one.change, limit)
    rank = int(np.count_nonzero(values > one.edge))
    if not 1 < rank < limit:
        return None
    q = left[:, :rank]
    d = q @ (q.T @ one.change)
    v = q[:, 0] / lengths
    v /= np.linalg.norm(v)
    strength, scale = 1.0, np.ones(len(v))
    for turn in range(_ROUNDS):
        along = v @ rows
        square = float(along @ along)
        if turn == 0:
            strength = -float(v @ (d / lengths[:, None]) @ along) / square if square else 0.0
        crossed, whole = products(v)
        squares = 1 - 2 * strength * v * crossed + strength**2 * v**2 * whole
        if not (squares > 0).all():
            return None
        scale = lengths / np.sqrt(squares)
        made = q @ (q.T @ ((rows - strength * np.outer(v, along)) * scale[:, None] - one.a))
        if turn == _ROUNDS - 1 or not square or not strength:
            break
        # What is left along the vectors' own coefficients corrects direction and strength.
        step = -((d - made) / lengths[:, None]) @ along / square
        moved = strength * v + step
        strength = float(np.linalg.norm(moved))
        v = moved / strength

    def predict(given: Sample) -> Values:
        units = given.a / lengths[:, None]
        mapped = (units - strength * np.outer(v, v @ units)) * scale[:, None]
        return given.a + q @ (q.T @ (mapped - given.a))

    return Rule(operator=FULL, columns=v[:, None], strength=strength, predict=predict, facts={"ranks": rank})


def _unit_rows(sample: Sample) -> tuple[Values, Values] | None:
    """Rows of unit length (over all vectors), and their lengths; None where a row is empty."""
    lengths = sample.lengths_a
    if not lengths.all():
        return None
    return sample.a / lengths[:, None], lengths


def _regressed(target: Values, rows: Values, along: Values) -> tuple[Values, Values]:
    """For each row the factors f, g of the best `f row + g along`."""
    aa, ac = np.einsum("ij,ij->i", rows, rows), rows @ along
    cc = float(along @ along)
    ta, tc = np.einsum("ij,ij->i", target, rows), target @ along
    determinant = np.maximum(aa * cc - ac**2, 1e-300)
    return (ta * cc - tc * ac) / determinant, (tc * aa - ta * ac) / determinant
