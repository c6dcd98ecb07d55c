"""GGML's block formats against the package gguf: the same numbers, the same bytes, and what an edit leaves."""

import gguf
import numpy as np
import pytest

from tests.helpers.ggml_samples import random_blocks
from tests.helpers.quantized_samples import Projection, projection, reader
from weight_edit.checkpoint.quantized import balanced
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.ggml import GGML_BLOCKS, KINDS, Ggml
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding
from weight_edit.errors import UsageError

ROWS, COLS = 96, 512


def decoded(kind: str, raw: np.ndarray, rows: int = ROWS) -> np.ndarray:
    """The numbers by the package's decoder."""
    return gguf.quants.dequantize(raw.reshape(rows, -1), gguf.GGMLQuantizationType[kind])


def test_the_sizes_are_the_packages() -> None:
    assert {name: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] for name in KINDS} == dict(GGML_BLOCKS)
    assert len(KINDS) == 13


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_the_packages_bit_for_bit_and_codes_are_read_and_written(kind: str, seed: int) -> None:
    storage = Ggml("w", kind, (ROWS, COLS))
    raw = random_blocks(kind, ROWS, COLS, seed)
    strip = {"w": raw.copy()}
    own = storage.decode(strip, ROWS, 0, COLS)
    assert np.array_equal(own, decoded(kind, raw).astype(np.float64))
    codes = storage.codes(strip, ROWS, 0, COLS)
    assert len(np.unique(codes)) == storage._kind.last + 1
    into = {"w": raw.copy()}
    storage.put_codes(np.zeros_like(codes), 0, into)
    assert not np.array_equal(into["w"], raw)
    for first in (0, 256):
        storage.put_codes(codes[:, first : first + 256], first, into)
    assert np.array_equal(into["w"], raw)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_around_the_wanted_number(kind: str) -> None:
    storage = Ggml("w", kind, (ROWS, COLS))
    raw = random_blocks(kind, ROWS, COLS, 3)
    strip = {"w": raw}
    before = storage.decode(strip, ROWS, 0, COLS)
    generator = np.random.default_rng(0)
    wanted = before + generator.standard_normal(before.shape) * before.std() / 20
    found = storage.neighbours(wanted, 0, strip)
    low, high = raw.copy(), raw.copy()
    storage.put_codes(found.low, 0, {"w": low})
    storage.put_codes(found.high, 0, {"w": high})
    low, high = (decoded(kind, each).astype(np.float64) for each in (low, high))
    lowest, highest = storage._kind.ends(storage._blocks(strip, 0, COLS))
    lowest, highest = (np.repeat(end.reshape(ROWS, -1), storage._kind.sub, 1) for end in (lowest, highest))
    inside = (wanted >= lowest) & (wanted <= highest) & (lowest < highest)
    assert inside.mean() > 0.2
    assert (low[inside] <= wanted[inside] * (1 - 1e-6 * np.sign(wanted[inside]))).mean() > 0.99
    assert ((high >= wanted) | (wanted - high < 1e-5 * (highest - lowest)))[inside].all()
    # Beyond the ends it is the end itself, and the number beside it.
    beyond = (wanted > highest) & (lowest < highest)
    assert np.array_equal(high[beyond], highest[beyond].astype(np.float64))
    scale = float(np.abs(before).max())
    assert np.abs(high - low - found.gap).max() < 1e-6 * scale
    assert np.abs(low - wanted - found.error).max() < 1e-5 * scale
    # What lies on the grid stays, code for code but for zeros of another sign.
    same = storage.neighbours(before, 0, strip).nearest()
    codes = storage.codes(strip, ROWS, 0, COLS)
    assert np.array_equal(same[before != 0], codes[before != 0]) or kind in ("Q2_K", "Q4_1", "Q5_1")
    assert (same != codes).mean() < (0.05 if kind != "MXFP4" else 0.2)


@pytest.mark.parametrize("seed", [0, 1])
def test_zeros_of_both_signs_stay_as_they_are(seed: int) -> None:
    storage = Ggml("w", "MXFP4", (ROWS, COLS))
    raw = random_blocks("MXFP4", ROWS, COLS, seed)
    strip = {"w": raw.copy()}
    before = storage.decode(strip, ROWS, 0, COLS)
    assert np.count_nonzero((before == 0) & np.signbit(before)) > 1000
    storage.encode(before, 0, strip, 0.0)
    assert np.array_equal(strip["w"], raw)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_block_are_decided_in_panels_of_whole_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cols = 300, KINDS[kind].numbers
    storage = Ggml("w", kind, (rows, cols))
    raw = random_blocks(kind, rows, cols, 4, real=True)
    edited = BalancedTensor(source=storage, target=storage, map=projection(rows), along_rows=True)
    wanted, _ = written(edited, raw)
    # As of more rows than are decided together.
    monkeypatch.setattr(balanced, "_TOGETHER", 8 * rows)
    found, _ = written(edited, raw)
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, raw)


def written(edited: EditedTensor, raw: np.ndarray) -> tuple[np.ndarray, Rounding]:
    rounding = Rounding(edited)
    return np.concatenate([block.copy() for block in edited.blocks("w", reader({"w": raw}), rounding)]), rounding


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("along_rows", [True, False])
def test_next_to_nothing_is_left(kind: str, along_rows: bool) -> None:
    storage = Ggml("w", kind, (512, 256))
    raw = random_blocks(kind, 512, 256, 5, real=True)
    map_ = projection(512 if along_rows else 256)
    results = {}
    for how in (EditedTensor, BalancedTensor):
        results[how], rounding = written(how(source=storage, target=storage, map=map_, along_rows=along_rows), raw)
        numbers = decoded(kind, results[how], 512).astype(np.float64)
        before = decoded(kind, raw, 512).astype(np.float64)
        parts = [map_.right.T @ x if along_rows else x @ map_.right for x in (numbers, before)]
        # A share of what random directions would have, if there is less.
        left = np.linalg.norm(parts[0]) / max(
            np.linalg.norm(parts[1]), np.linalg.norm(before) / map_.right.shape[0] ** 0.5
        )
        assert np.isclose(left, rounding.loss.left, rtol=1e-3, atol=1e-6)
        results[how] = left
        assert rounding.loss.kept > (0.9 if how is BalancedTensor else 0.1)
    assert results[BalancedTensor] < 0.01
    assert results[BalancedTensor] < results[EditedTensor] / 4


@pytest.mark.parametrize("loud", [32, 64])
def test_cut_numbers_that_add_up_are_settled(loud: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One loud row: what is taken off the others leaves their blocks, each by too little for a coarser grid to pay."""
    rows, cols = 896, 512
    storage = Ggml("w", "Q4_K", (rows, cols))
    raw = random_blocks("Q4_K", rows, cols, 3, real=True)
    direction = np.random.default_rng(2).standard_normal((rows, 1))
    map_ = Projection(direction / np.linalg.norm(direction))
    first = int(np.argmax(np.abs(direction))) * cols // 256
    blocks = raw.reshape(-1, KINDS["Q4_K"].size)
    for place in KINDS["Q4_K"].halves:
        half = blocks[first, place : place + 2].copy().view("<f2") * np.float16(loud)
        blocks[first, place : place + 2] = half.view(np.uint8)
    edited = BalancedTensor(source=storage, target=storage, map=map_, along_rows=True)
    after, rounding = written(edited, raw)
    assert rounding.loss.left < 0.01
    assert np.array_equal(storage.decode({"w": after}, rows, 0, cols), decoded("Q4_K", after, rows).astype(np.float64))
    # Where third neighbours do, no grid is widened; beyond what they can, some are.
    monkeypatch.setattr(Ggml, "widens", False)
    _, narrow = written(edited, raw)
    assert (rounding.loss.rescaled == narrow.loss.rescaled) == (loud == 32)
    # With the two neighbours of each number alone, it is many times as much.
    monkeypatch.setattr(balanced, "unsettled", lambda right, gap, sums: np.zeros(len(sums), np.bool_))
    _, two = written(edited, raw)
    assert rounding.loss.left < two.loss.left / 8


@pytest.mark.parametrize("kind", KINDS)
def test_grids_are_stretched_for_numbers_far_beyond_them(kind: str) -> None:
    storage = Ggml("w", kind, (64, 256))
    raw = random_blocks(kind, 64, 256, 7, real=True)
    before = decoded(kind, raw, 64).astype(np.float64)
    strip = {"w": raw.copy()}
    # What fits stays as it is.
    assert storage.fit(before, 0, strip, 0.0) == 0
    assert np.array_equal(strip["w"], raw)
    wanted = 3 * before
    assert storage.fit(wanted, 0, strip, 0.0) > 0
    lowest, highest = storage._kind.ends(storage._blocks(strip, 0, 256))
    parts = wanted.reshape(*lowest.shape, storage._kind.sub)
    slack = (highest - lowest) / storage._kind.last
    assert (((parts <= (highest + slack)[..., None]) & (parts >= (lowest - slack)[..., None])).mean()) > 0.95
    storage.encode(wanted, 0, strip, 0.0)
    after = decoded(kind, strip["w"], 64)
    assert np.linalg.norm(after - wanted) < 0.35 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "MXFP4"])
def test_a_scale_that_is_not_finite_is_refused(kind: str) -> None:
    storage = Ggml("w", kind, (4, 256))
    raw = random_blocks(kind, 4, 256, 0)
    place = KINDS[kind].halves[-1]
    raw[place : place + 2] = np.array([np.inf], "<f2").view(np.uint8)
    with pytest.raises(UsageError, match="tensor 'w' has 1 scales that are not finite"):
        storage.load(reader({"w": raw}), 0, 0, 4)


def test_experts_are_matrices_of_their_own() -> None:
    storage = Ggml("w", "Q4_K", (3, 64, 256))
    raw = random_blocks("Q4_K", 3 * 64, 256, 1)
    assert (storage.slabs, storage.rows, storage.cols) == (3, 64, 256)
    strip = storage.load(reader({"w": raw}), 2, 8, 16)
    wanted = decoded("Q4_K", raw, 3 * 64)[2 * 64 + 8 : 2 * 64 + 16]
    assert np.array_equal(storage.decode(strip, 8, 0, 256), wanted)
