"""GPTQ, AWQ and integers of compressed-tensors on what their own packages wrote: decoded alike, kept, edited."""

import math

import numpy as np
import pytest
import torch

from tests.helpers.integer_samples import AWQ, GPTQ, INT8, NAMES, PACKED, IntegerSample
from tests.helpers.quantiser_samples import stored_again
from tests.helpers.quantized_samples import numbers, projection, reader
from weight_edit.checkpoint.quantized import balanced
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.integers import Integers
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding

SCALED = [name for name in NAMES if name not in ("gptq-act-order", "pack-tensor", "int8-tensor")]
"""Samples whose scales can be made anew: a strip has whole groups."""


def scales_of(name: str) -> str:
    return "x.scales" if name in (*GPTQ, *AWQ) else "x.weight_scale"


def whole(sample: IntegerSample) -> dict[str, np.ndarray]:
    storage = sample.storage()
    return dict(sample.strip(storage, 0, storage.rows))


def levels(sample: IntegerSample) -> np.ndarray:
    """All numbers that each place could have, ascending, (rows, columns, codes), by decoding every code everywhere."""
    storage, strip = sample.storage(), whole(sample)
    found = []
    for code in range(storage._last + 1):
        storage.put_codes(np.full((storage.rows, storage.cols), code, np.uint8), 0, strip)
        found.append(storage.decode(strip, storage.rows, 0, storage.cols).copy())
    return np.sort(np.stack(found, axis=-1), axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_package_bit_for_bit(name: str) -> None:
    sample = IntegerSample.of(name)
    ours = torch.from_numpy(sample.matrix(numbers(sample.storage(), sample.raw)[0]).copy())
    # Products are exact in float64; packages round them once, to the dtype of their scales.
    assert sample.wanted.dtype in (torch.float16, torch.bfloat16)
    assert torch.equal(ours.to(sample.wanted.dtype)[: len(sample.wanted)], sample.wanted)
    assert sample.wanted.unique().numel() > 10


@pytest.mark.parametrize("name", NAMES)
def test_read_and_written_without_an_edit_the_bytes_are_the_same(name: str) -> None:
    sample = IntegerSample.of(name)
    storage = sample.storage()
    again, made = stored_again(sample, numbers(storage, sample.raw)[0])
    assert made == 0
    assert {key: raw.tobytes() for key, raw in again.items()} == {key: sample.raw[key].tobytes() for key in again}
    strip = whole(sample)
    before = strip[storage.name].copy()
    storage.put_codes(storage.codes(strip, storage.rows, 0, storage.cols), 0, strip)
    assert np.array_equal(strip[storage.name], before)


@pytest.mark.parametrize("name", NAMES)
def test_only_codes_and_scales_are_written(name: str) -> None:
    storage = IntegerSample.of(name).storage()
    codes = {"gptq": "qweight", "awq": "qweight", "pack": "weight_packed"}.get(name.split("-")[0], "weight")
    assert list(storage.parts) == [f"x.{codes}", *([scales_of(name)] if name in SCALED else [])]
    assert not storage.parts.keys() & storage.aside.keys()


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_enclose_and_the_nearest_is_the_nearest(name: str) -> None:
    sample = IntegerSample.of(name)
    storage, grid, strip = sample.storage(), levels(sample), whole(sample)
    span = grid[..., -1] - grid[..., 0]
    wanted = grid[..., 0] + np.random.default_rng(0).uniform(-0.1, 1.1, span.shape) * span
    found = storage.neighbours(wanted, 0, strip)
    storage.put_codes(found.nearest(), 0, strip)
    got = storage.decode(strip, storage.rows, 0, storage.cols)
    best = np.abs(grid - wanted[..., None]).min(axis=-1)
    assert np.allclose(np.abs(got - wanted), best, rtol=1e-5, atol=1e-6 * span.max())
    for codes, more in ((found.low, 0 * found.gap), (found.high, found.gap)):
        storage.put_codes(codes, 0, strip)
        got = storage.decode(strip, storage.rows, 0, storage.cols)
        assert np.allclose(got - wanted, found.error + more, rtol=1e-4, atol=1e-6 * span.max())
    inside = (wanted > grid[..., 0]) & (wanted < grid[..., -1])
    assert 0.5 < inside.mean() < 1
    assert (found.error[inside] <= 1e-6 * span.max()).all()
    assert ((found.error + found.gap)[inside] >= -1e-6 * span.max()).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_can_be_taken_in_steps(name: str) -> None:
    sample = IntegerSample.of(name)
    storage = sample.storage()
    values = numbers(storage, sample.raw)[0]
    values += np.random.default_rng(1).standard_normal(values.shape) * np.abs(values).mean()
    together = whole(sample)
    made = storage.fit(values, 0, together, 0.0)
    storage.put_codes(storage.neighbours(values, 0, together).nearest(), 0, together)
    columns = [slice(first, first + storage.col_step) for first in range(0, storage.cols, storage.col_step)]
    parts: dict[str, list[np.ndarray]] = {part: [] for part in storage.parts}
    by_steps, read = 0, sample.strip(storage, 0, storage.rows)
    for first in range(0, storage.rows, storage.row_step):
        last = min(first + storage.row_step, storage.rows)
        loaded, cut = sample.strip(storage, first, last), storage.rows_of(read, first, last)
        assert {part: raw.tobytes() for part, raw in loaded.items()} == {
            part: raw.tobytes() for part, raw in cut.items()
        }
        for span in columns:
            tile = np.ascontiguousarray(values[first:last, span])
            by_steps += storage.fit(tile, span.start, loaded, 0.0)
            storage.put_codes(storage.neighbours(tile, span.start, loaded).nearest(), span.start, loaded)
            end = span.start + tile.shape[1]
            assert np.array_equal(
                storage.decode(loaded, last - first, span.start, end),
                storage.decode(together, storage.rows, span.start, end)[first:last],
            )
        for part, raws in parts.items():
            raws.append(loaded[part])
    assert by_steps == made
    assert {part: np.concatenate(raws).tobytes() for part, raws in parts.items()} == {
        part: together[part].tobytes() for part in storage.parts
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_small_edit_keeps_all_scales(name: str) -> None:
    sample = IntegerSample.of(name)
    again, made = stored_again(sample, numbers(sample.storage(), sample.raw)[0] * (1 + 1e-3))
    assert made == 0
    assert np.array_equal(again.get(scales_of(name), sample.raw[scales_of(name)]), sample.raw[scales_of(name)])


@pytest.mark.parametrize("name", SCALED)
def test_scales_are_made_anew_where_much_is_cut(name: str) -> None:
    sample = IntegerSample.of(name)
    storage = sample.storage()
    before = numbers(storage, sample.raw)[0]
    wanted = before.copy()
    output = (slice(None), 5) if name in (*GPTQ, *AWQ) else 5
    wanted[output] *= 3
    again, made = stored_again(sample, wanted)
    after = numbers(storage, sample.raw | again)[0]
    groups = math.prod(sample.infos[scales_of(name)].shape) // sample.matrix(before).shape[0]
    assert made == groups
    kept = whole(sample)
    storage.put_codes(storage.neighbours(wanted, 0, kept).nearest(), 0, kept)
    cut = storage.decode(kept, storage.rows, 0, storage.cols)
    assert np.linalg.norm(after[output] - wanted[output]) < 0.5 * np.linalg.norm(cut[output] - wanted[output])
    # Groups of other outputs keep their scales, and with them their numbers.
    others = np.ones(before.shape, bool)
    others[output] = False
    assert np.array_equal(after[others], before[others])


@pytest.mark.parametrize("name", SCALED)
def test_one_number_beyond_the_end_is_not_worth_a_new_scale(name: str) -> None:
    """The rule: the square that is cut off against what rounding costs the group, and against wider steps."""
    sample = IntegerSample.of(name)
    storage, grid = sample.storage(), levels(sample)
    wanted = numbers(storage, sample.raw)[0]
    step = grid[3, 5, 1] - grid[3, 5, 0]
    # Zero points stay, so that a group reaches further on the side on which it has codes.
    end, step = (grid[3, 5, -1], step) if grid[3, 5, -1] > -grid[3, 5, 0] else (grid[3, 5, 0], -step)
    wanted[3, 5] = end + 0.9 * step
    assert stored_again(sample, wanted)[1] == 0
    wanted[3, 5] = end + 40 * step
    assert stored_again(sample, wanted)[1] == 1


@pytest.mark.parametrize("name", ["gptq", "awq", "pack-asymmetric", "int8"])
def test_scales_of_zero_and_negative_ones(name: str) -> None:
    sample = IntegerSample.of(name)
    scales = sample.tensor(scales_of(name))
    scales[0, 0], scales[1, 0] = 0, -scales[1, 0]
    sample.put(scales_of(name), scales)
    storage = sample.storage()
    before = numbers(storage, sample.raw)[0]
    again, made = stored_again(sample, before)
    assert made == 0
    assert np.array_equal(numbers(storage, sample.raw | again)[0], before)
    assert np.count_nonzero(sample.matrix(before)[0] == 0) >= 32
    wanted = before + np.random.default_rng(2).standard_normal(before.shape) * np.abs(before).max()
    again, made = stored_again(sample, wanted)
    after = numbers(storage, sample.raw | again)[0]
    assert made > 2
    assert np.linalg.norm(after - wanted) < 0.3 * np.linalg.norm(wanted)
    now = torch.from_numpy(again[scales_of(name)].copy()).view(scales.dtype).reshape(scales.shape)
    assert now[0, 0] > 0
    assert now[1, 0] < 0


@pytest.mark.parametrize("along_rows", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_balanced_rounding_leaves_less_than_nearest(
    name: str, along_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both orientations, and however many are decided together; and no byte of what is only read is in the way."""
    sample = IntegerSample.of(name)
    storage = sample.storage()
    width = storage.rows if along_rows else storage.cols
    change = projection(width, seed=3)
    left, kept, found = {}, {}, {}
    for kind in (EditedTensor, BalancedTensor):
        for together in (1 << 21, 64 * storage.rows):
            monkeypatch.setattr(balanced, "_TOGETHER", together)
            edited = kind(source=storage, target=storage, map=change, along_rows=along_rows)
            rounding = Rounding(edited)
            parts = {
                part: b"".join(
                    block.tobytes()
                    for block in edited.blocks(part, reader(sample.raw), rounding if part == storage.name else None)
                )
                for part in storage.parts
            }
            assert {part: len(raw) for part, raw in parts.items()} == {
                part: sample.raw[part].size for part in storage.parts
            }
            assert found.setdefault(kind, parts) == parts
            left[kind] = rounding.loss.left
            kept[kind] = rounding.loss.kept
    assert left[BalancedTensor] < max(left[EditedTensor] / 4, 0.01)
    assert kept[BalancedTensor] == pytest.approx(1, abs=0.2)
    now = {part: np.frombuffer(raw, np.uint8) for part, raw in found[BalancedTensor].items()}
    after = numbers(storage, sample.raw | now)[0]
    before = numbers(storage, sample.raw)[0]
    along = change.left[:, 0]
    both = [np.linalg.norm(along @ (each if along_rows else each.T)) for each in (after, before)]
    assert both[0] == pytest.approx(left[BalancedTensor] * max(both[1], np.linalg.norm(before) / width**0.5), rel=1e-6)


def test_all_layouts_are_among_the_samples() -> None:
    assert len(NAMES) == len({*GPTQ, *AWQ, *PACKED, *INT8}) == 22
    assert all(isinstance(IntegerSample.of(name).storage(), Integers) for name in NAMES)
