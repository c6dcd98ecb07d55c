"""Batches hold every sequence once with little padding, and halve where memory runs out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import PASS_COST, batches, grouped, run_batches

sequences_of = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), max_size=20)


@given(sequences_of, st.integers(1, 7), st.sampled_from(["left", "right"]))
def test_batches_hold_every_sequence_once_with_its_tokens_and_positions(sequences, batch_size, side):
    seen = []
    for batch in batches(sequences, batch_size=batch_size, pad_id=0, side=side):
        assert 1 <= len(batch.rows) <= batch_size
        for index, row in enumerate(batch.rows):
            real = batch.mask[index].bool()
            assert batch.ids[index, real].tolist() == sequences[row]
            assert batch.position_ids[index, real].tolist() == list(range(len(sequences[row])))
            assert batch.ids[index, ~real].eq(0).all()
            assert real[-1 if side == "left" else 0]
            assert batch.ids[index, batch.columns([-1])[index, 0]] == sequences[row][-1]
            assert batch.ids[index, batch.columns([-len(sequences[row])])[index, 0]] == sequences[row][0]
        seen += batch.rows
    assert sorted(seen) == list(range(len(sequences)))


@given(sequences_of, st.integers(1, 7))
def test_padding_costs_less_than_the_passes_that_it_saves_and_longest_come_first(sequences, batch_size):
    widths, cost = [], 0
    for batch in batches(sequences, batch_size=batch_size):
        widths.append(batch.ids.shape[1])
        cost += PASS_COST + batch.ids.numel()
    assert widths == sorted(widths, reverse=True)
    apart = sum(PASS_COST + len(sequence) for sequence in sequences)
    assert cost <= apart
    longest_first = sorted((len(sequence) for sequence in sequences), reverse=True)
    full = [longest_first[start : start + batch_size] for start in range(0, len(sequences), batch_size)]
    assert cost <= sum(PASS_COST + len(rows) * rows[0] for rows in full)


def test_sequences_of_one_length_alone_share_a_batch_where_padding_shows():
    found = grouped([[1], [1, 2], [3], [4, 5], [6, 7]], 2, unpadded=True)
    assert found == [(1, 3), (4,), (0, 2)]


def test_empty_sequences_and_batch_sizes_below_one_are_refused():
    with pytest.raises(UsageError, match="sequence 1 has no tokens"):
        list(batches([[1], []]))
    with pytest.raises(UsageError, match="batch size is 0"):
        list(batches([[1]], batch_size=0))


def limited(limit, error=torch.OutOfMemoryError, message="CUDA out of memory"):
    sizes = []

    def step(batch):
        sizes.append(len(batch.rows))
        if len(batch.rows) > limit:
            raise error(message)
        return batch.ids.sum(dim=1).tolist()

    return step, sizes


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(error, message):
    sequences = [[row, row] for row in range(1, 21)]
    step, sizes = limited(3, error, message)
    sums = {}
    for batch, values in run_batches(sequences, step, batch_size=16):
        sums |= dict(zip(batch.rows, values, strict=True))
    assert sums == {row: 2 * (row + 1) for row in range(20)}
    assert sizes == [16, 8, 4, *[2] * 10]


def test_out_of_memory_with_one_sequence_says_what_to_do():
    step, _ = limited(0)
    with pytest.raises(UsageError, match="single sequence of 2 tokens; use shorter prompts"):
        list(run_batches([[1, 2], [3]], step))


def test_other_errors_are_not_mistaken_for_lack_of_memory():
    step, sizes = limited(0, RuntimeError, "shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        list(run_batches([[1], [2]], step))
    assert sizes == [2]
