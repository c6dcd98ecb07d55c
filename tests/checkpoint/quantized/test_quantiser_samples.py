"""NVFP4 and bitsandbytes on what their own packages wrote: decoded alike, kept, edited on the grid."""

import numpy as np
import pytest
import torch

from tests.helpers.quantiser_samples import NAMES, Sample, stored_again
from tests.helpers.quantized_samples import numbers, projection, reader
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.edited import EditedTensor

SCALES = {"nvfp4": "weight_scale", "int8": "SCB"}


def scales_of(name: str) -> str:
    return next((scale for kind, scale in SCALES.items() if name.startswith(kind)), "weight.absmax")


def grid(sample: Sample, storage: Coded) -> np.ndarray:
    """All numbers that each place could have, (rows, columns, codes), by decoding every code everywhere."""
    whole = sample.strip(storage, 0, storage.rows)
    found = []
    for code in range(16) if sample.name != "int8" else range(1, 256):
        storage.put_codes(np.full((storage.rows, storage.cols), code, np.uint8), 0, whole)
        found.append(storage.decode(whole, storage.rows, 0, storage.cols))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_package_bit_for_bit(name: str) -> None:
    sample = Sample.of(name)
    ours = torch.from_numpy(numbers(sample.storage(), sample.raw)[0])
    # Exact products in float64, rounded as the package rounds: to float32, and from there to what it decodes to.
    assert torch.equal(ours.float().to(sample.wanted.dtype), sample.wanted)
    assert sample.wanted.unique().numel() > 20


@pytest.mark.parametrize("name", NAMES)
def test_read_and_written_without_an_edit_the_bytes_are_the_same(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    again, made = stored_again(sample, numbers(storage, sample.raw)[0])
    assert made == 0
    assert {key: raw.tobytes() for key, raw in again.items()} == {key: sample.raw[key].tobytes() for key in again}
    whole = sample.strip(storage, 0, storage.rows)
    before = whole[storage.name].copy()
    storage.put_codes(storage.codes(whole, storage.rows, 0, storage.cols), 0, whole)
    assert np.array_equal(whole[storage.name], before)


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_enclose_and_the_nearest_is_the_nearest(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    levels = grid(sample, storage)
    generator = np.random.default_rng(0)
    top = np.abs(levels).max(axis=-1)
    wanted = generator.uniform(-1.2, 1.2, top.shape) * np.where(top == 0, 1, top)
    strip = sample.strip(storage, 0, storage.rows)
    found = storage.neighbours(wanted, 0, strip)
    storage.put_codes(found.nearest(), 0, strip)
    got = storage.decode(strip, storage.rows, 0, storage.cols)
    best = np.abs(levels - wanted[..., None]).min(axis=-1)
    assert np.allclose(np.abs(got - wanted), best, rtol=1e-5, atol=1e-6 * top.max())
    for codes, offset in ((found.low, 0 * found.gap), (found.high, found.gap)):
        storage.put_codes(codes, 0, strip)
        got = storage.decode(strip, storage.rows, 0, storage.cols)
        assert np.allclose(got - wanted, found.error + offset, rtol=1e-4, atol=1e-5 * top.max())
    inside = np.abs(wanted) < top
    assert inside.any()
    assert (found.error[inside] <= 1e-6 * top.max()).all()
    assert ((found.error + found.gap)[inside] >= -1e-6 * top.max()).all()


@pytest.mark.parametrize("name", NAMES)
def test_columns_and_rows_can_be_taken_in_steps(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    values = numbers(storage, sample.raw)[0]
    values += np.random.default_rng(1).standard_normal(values.shape) * np.abs(values).mean()
    whole = sample.strip(storage, 0, storage.rows)
    made = storage.fit(values, 0, whole, 0.0)
    storage.put_codes(storage.neighbours(values, 0, whole).nearest(), 0, whole)
    steps = [slice(first, first + storage.col_step) for first in range(0, storage.cols, storage.col_step)]
    parts: dict[str, list[np.ndarray]] = {part: [] for part in storage.parts}
    by_steps = 0
    for first in range(0, storage.rows, storage.row_step):
        last = min(first + storage.row_step, storage.rows)
        strip = sample.strip(storage, first, last)
        for step in steps:
            tile = np.ascontiguousarray(values[first:last, step])
            by_steps += storage.fit(tile, step.start, strip, 0.0)
            storage.put_codes(storage.neighbours(tile, step.start, strip).nearest(), step.start, strip)
        for part, raws in parts.items():
            raws.append(strip[part])
    assert by_steps == made
    assert {part: np.concatenate(raws).tobytes() for part, raws in parts.items()} == {
        part: whole[part].tobytes() for part in storage.parts
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_small_edit_keeps_all_scales(name: str) -> None:
    sample = Sample.of(name)
    values = numbers(sample.storage(), sample.raw)[0]
    again, made = stored_again(sample, values * (1 + 1e-3))
    assert made == 0
    assert np.array_equal(again[scales_of(name)], sample.raw[scales_of(name)])
    assert set(again) == {sample.storage().name, scales_of(name)}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nf4-odd"])
def test_scales_are_made_anew_where_much_is_cut(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    before = numbers(storage, sample.raw)[0]
    wanted = before.copy()
    row = storage.rows - 1
    wanted[row] *= 3
    again, made = stored_again(sample, wanted)
    after = numbers(storage, sample.raw | again)[0]
    assert made > 0
    kept = sample.strip(storage, 0, storage.rows)
    storage.put_codes(storage.neighbours(wanted, 0, kept).nearest(), 0, kept)
    cut = storage.decode(kept, storage.rows, 0, storage.cols)
    assert np.linalg.norm(after[row] - wanted[row]) < 0.5 * np.linalg.norm(cut[row] - wanted[row])
    # Blocks of other rows keep their scales, and with them their numbers.
    others = slice(0, row - storage.row_step)
    assert np.array_equal(after[others], before[others])
    changed = np.count_nonzero(again[scales_of(name)] != sample.raw[scales_of(name)])
    assert 0 < changed < len(again[scales_of(name)]) / 2


@pytest.mark.parametrize("name", [name for name in NAMES if "nested" not in name and name != "nf4-odd"])
def test_a_row_of_zeros_can_be_filled(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    values = numbers(storage, sample.raw)[0]
    assert not values[2].any()
    values[2] = np.random.default_rng(2).standard_normal(storage.cols) * np.abs(values).max() / 4
    again, made = stored_again(sample, values)
    after = numbers(storage, sample.raw | again)[0]
    assert made > 0
    assert np.linalg.norm(after[2] - values[2]) < 0.25 * np.linalg.norm(values[2])


def test_a_double_quantised_scale_that_no_level_reaches_is_the_largest() -> None:
    sample = Sample.of("nf4-nested")
    storage = sample.storage()
    values = numbers(storage, sample.raw)[0]
    values[3] *= 1e3
    again, made = stored_again(sample, values)
    after = numbers(storage, sample.raw | again)[0]
    assert made > 0
    assert (again["weight.absmax"].reshape(20, -1)[3] == 255).all()
    assert np.abs(after[3]).max() > np.abs(values[4:]).max() / 2


def edited(sample: Sample, along_rows: bool, kind: type[EditedTensor] = BalancedTensor) -> EditedTensor:
    storage = sample.storage()
    map_ = projection(storage.rows if along_rows else storage.cols)
    return kind(source=storage, target=storage, map=map_, along_rows=along_rows)


def written(edit: EditedTensor, sample: Sample) -> dict[str, bytes]:
    read = reader(sample.raw)
    return {part: np.concatenate(list(edit.blocks(part, read))).tobytes() for part in edit.target.parts}


@pytest.mark.parametrize("along_rows", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_decided_in_panels_and_strips_the_bytes_are_the_same(
    name: str, along_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sample.of(name)
    at_once = written(edited(sample, along_rows), sample)
    storage = sample.storage()
    # Some columns, and one step of rows at a time.
    few = 40 * storage.rows if storage.col_step < storage.cols else 3 * storage.rows
    monkeypatch.setattr("weight_edit.checkpoint.quantized.balanced._TOGETHER", few if along_rows else 1)
    monkeypatch.setattr("weight_edit.checkpoint.quantized.balanced.TILE", 1)
    assert written(edited(sample, along_rows), sample) == at_once
    assert at_once != {part: sample.raw[part].tobytes() for part in at_once}


@pytest.mark.parametrize("along_rows", [True, False])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "nf4-odd"])
def test_balanced_leaves_less_than_nearest_and_scales_are_alike(name: str, along_rows: bool) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    before = numbers(storage, sample.raw)[0]
    v = projection(storage.rows if along_rows else storage.cols).left

    def left(parts: dict[str, bytes]) -> float:
        raw = {part: np.frombuffer(content, np.uint8) for part, content in parts.items()}
        after = numbers(storage, sample.raw | raw)[0]
        along = (v.T @ after, v.T @ before) if along_rows else (after @ v, before @ v)
        return float(np.linalg.norm(along[0]) / np.linalg.norm(along[1]))

    balanced, nearest = (written(edited(sample, along_rows, kind), sample) for kind in (BalancedTensor, EditedTensor))
    scale = scales_of(name)
    assert balanced[scale] == nearest[scale]
    # Vectors of few entries: what one step is of their sums.
    assert left(balanced) < 0.5 * left(nearest)
