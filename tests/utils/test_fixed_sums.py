"""Sums in a written order: right, in that very order, and the only ones on the way to an edit's bytes."""

import ast
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import weight_edit
from weight_edit.utils.fixed_decompositions import qr, svd
from weight_edit.utils.fixed_sums import (
    PARTS,
    column_squares,
    dot,
    inner_products,
    norm,
    product,
    row_squares,
    row_sums,
    transposed_product,
)

PACKAGE = Path(weight_edit.__file__).parent
ROOMS = ("edits", "checkpoint", "plan", "baking")
"""The rooms that make bytes; `anatomy` and `proofs` decide only where they go."""

ORDERED_BY_LIBRARIES = set(
    re.findall(
        r"\w+",
        "sum nansum mean average std var cumsum trace dot vdot vecdot matvec vecmat inner einsum tensordot"
        " matmul linalg reduce reduceat accumulate convolve correlate kron polyval interp fft",
    )
)
ROUNDED_BY_LIBRARIES = set(
    re.findall(
        r"\w+",
        "exp exp2 expm1 log log2 log10 log1p power pow float_power sin cos tan arcsin arccos arctan arctan2"
        " sinh cosh tanh hypot cbrt logaddexp",
    )
)
ALLOWED = {
    ("edits/low_rank.py", "apply"): "the hook of a model in memory",
    ("edits/low_rank.py", "on_stored"): "the formula by torch, which hooks of biases and tests go by",
    ("edits/low_rank.py", "_as_long_as"): "of the same",
    ("checkpoint/quantized/fp8.py", "_peaks"): "the largest numbers of blocks, which no order changes",
    ("plan/writer_edits.py", "map_before"): "a norm within another one",
    ("plan/hooks.py", ""): "hooks of a model in memory",
}
"""(file, function) that may leave the order to a library, and why it does not reach a checkpoint's bytes."""


def unordered(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, function, what) of everything in a source whose last bits a library or a processor decides."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[int, str, str]]:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            yield node.lineno, function, "@"
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Pow) and not _is_exact(node):
            yield node.lineno, function, "**"
        if isinstance(node, ast.Attribute) and node.attr in ORDERED_BY_LIBRARIES | ROUNDED_BY_LIBRARIES:
            yield node.lineno, function, node.attr
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(ast.parse(source), "")


def _is_exact(power: ast.BinOp | ast.AugAssign) -> bool:
    """Whether a power is one of two, which every library gives exactly."""
    return isinstance(power, ast.BinOp) and isinstance(power.left, ast.Constant) and power.left.value in (2, 10)


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_on_the_way_to_bytes_is_summed_or_rounded_by_a_library(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert len(files) > 5
    found = []
    for file in files:
        place = file.relative_to(PACKAGE).as_posix()
        for line, function, what in unordered(file.read_text(encoding="utf-8")):
            if (place, function) not in ALLOWED and (place, "") not in ALLOWED:
                found.append(f"{place}:{line}: {what} in {function}")
    assert not found, "\n".join(found)


def test_what_is_allowed_is_there():
    for place, function in ALLOWED:
        names = {name for _, name, _ in unordered((PACKAGE / place).read_text(encoding="utf-8"))}
        assert function in names if function else names


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, b):\n    return a @ b",
        "a @= b",
        "x.sum(axis=1)",
        "np.add.reduce(x)",
        "np.linalg.qr(x)",
        "np.vdot(x, y)",
        "x ** 0.5",
        "np.log2(x)",
    ],
)
def test_what_libraries_order_or_round_is_found(source):
    assert list(unordered(source))


def halved(terms: list[float]) -> float:
    while len(terms) > 1:
        half = len(terms) // 2
        first, middle, last = terms[:half], terms[half : len(terms) - half], terms[len(terms) - half :]
        terms = [a + b for a, b in zip(first, last, strict=True)] + middle
    return terms[0]


def in_order(terms: list[float]) -> float:
    """The rule in Python's own numbers: runs added entry by entry, then halved."""
    step = -(-len(terms) // PARTS)
    added = terms[:step]
    for first in range(step, len(terms), step):
        for place, term in enumerate(terms[first : first + step]):
            added[place] += term
    return halved(added)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17, 64, 100, 896])
def test_sums_are_in_the_order_that_is_written_down(count):
    left, right = np.random.default_rng(count).standard_normal((2, 3, count))
    wanted = [[in_order([float(a) * float(b) for a, b in zip(x, y, strict=True)]) for y in right] for x in left]
    assert inner_products(left, right).tolist() == wanted
    assert transposed_product(left.T.copy(), right.T.copy()).tolist() == wanted
    assert transposed_product(left.T, right.T).tolist() == wanted
    assert row_squares(left).tolist() == [in_order([float(a) * float(a) for a in x]) for x in left]
    assert column_squares(left.T).tolist() == row_squares(left).tolist()
    assert row_sums(left).tolist() == [in_order(x.tolist()) for x in left]
    assert dot(left[0], right[0]) == halved([float(a) * float(b) for a, b in zip(left[0], right[0], strict=True)])


def test_the_order_is_that_of_no_library():
    """Numbers for which a sum in another order has other last bits: else the test above would show nothing."""
    left, right = np.random.default_rng(0).standard_normal((2, 50, 896))
    ours = inner_products(left, right)
    assert (ours != left @ right.T).any()
    assert (row_sums(left) != left.sum(axis=1)).any()
    np.testing.assert_allclose(ours, left @ right.T, rtol=0, atol=1e-12)


def test_sums_are_as_accurate_as_exact_ones_rounded():
    left, right = np.random.default_rng(3).standard_normal((2, 896))
    exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(left, right, strict=True))
    sizes = float(np.abs(left * right).sum())
    assert abs(float(Fraction(dot(left, right)) - exact)) < 8 * 2.0**-53 * sizes


def test_products_of_few_columns():
    left, right = np.random.default_rng(1).standard_normal((2, 5, 5))
    np.testing.assert_allclose(product(left, right), left @ right, atol=1e-14)
    assert product(left[:, :0], right[:0]).tolist() == np.zeros((5, 5)).tolist()


def test_nothing_is_the_sum_of_nothing():
    nothing = np.zeros((0, 4))
    assert transposed_product(nothing, nothing).tolist() == np.zeros((4, 4)).tolist()
    assert inner_products(nothing, np.ones((2, 4))).shape == (0, 2)
    assert inner_products(np.ones((2, 0)), np.ones((3, 0))).tolist() == np.zeros((2, 3)).tolist()
    assert dot(np.zeros(0), np.zeros(0)) == 0.0 == norm(nothing)


@pytest.mark.parametrize(("tall", "count"), [(1, 1), (40, 1), (40, 7), (200, 16), (6, 9)])
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_decompositions_are_those_of_lapack(tall, count, rank):
    draw = np.random.default_rng(tall * count)
    matrix = draw.standard_normal((tall, count))
    if rank is not None:
        matrix = draw.standard_normal((tall, rank)) @ draw.standard_normal((rank, count))
    q, r = qr(matrix)
    there = np.diag(r) > 0
    np.testing.assert_allclose(q @ r, matrix, atol=1e-13)
    np.testing.assert_allclose((q.T @ q)[np.ix_(there, there)], np.eye(there.sum()), atol=1e-14)
    assert not q[:, ~there].any()
    assert (np.tril(r, -1) == 0).all()
    u, sizes, v = svd(matrix.T)
    np.testing.assert_allclose((u * sizes) @ v, matrix.T, atol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.eye(count), atol=1e-12)
    wanted = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(sizes[: len(wanted)], wanted, atol=1e-12)
    assert np.abs(sizes[len(wanted) :]).max(initial=0.0) < 1e-12


def test_a_column_that_is_nearly_the_one_before_is_orthogonal_all_the_same():
    draw = np.random.default_rng(0)
    first, other = draw.standard_normal((2, 300, 1))
    q, _ = qr(np.concatenate([first, first + 1e-12 * other, other], axis=1))
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-14)
