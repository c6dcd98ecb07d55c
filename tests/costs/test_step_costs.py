"""The steps of a plan against the formula of the reference, and what offloading and processes change."""

from dataclasses import replace

import pytest

from tests.helpers.families import family_config
from weight_edit.costs.memory_need import memory_need
from weight_edit.costs.model_size import ModelSize, model_size
from weight_edit.costs.rates import SPREAD, Rates
from weight_edit.costs.step_costs import StepCost, step_costs
from weight_edit.costs.workload import Lengths, Workload
from weight_edit.errors import UsageError

WORK = Workload(
    target=Lengths.all_alike(40),
    baseline=Lengths.all_alike(30),
    measured=False,
    prefix=0,
    n_train=20,
    n_validation=10,
    positions=5,
    candidates=(12, 12),
    allowed=2,
    answers=30,
    first_tokens=10,
    max_new_tokens=8,
    confirm=7,
    trials=50,
)
RATES = Rates(flops=1e12, decode_flops=1e11, disk=1e9, disk_write=5e8, device=None)


@pytest.fixture(scope="module")
def size() -> ModelSize:
    return model_size(family_config("llama"), None, length=32)


def named(size: ModelSize, work: Workload, rates: Rates | None = None) -> dict[str, StepCost]:
    return {step.name: step for step in step_costs(size, work, rates)}


def pass_flops(size: ModelSize, tokens: int, logits: int = 1) -> float:
    return size.counts.per_token * tokens + size.counts.per_pair * tokens**2 + logits * size.per_logits


def test_selection_lies_between_its_first_stage_and_the_references_formula(size: ModelSize) -> None:
    found = named(size, WORK)["selection"]
    # The unedited model's passes over the baseline come first.
    assert found.passes.high == 10 + 12 * (10 + 2 * 10)
    assert found.passes.low == 10 + 12 * 10
    target, baseline = pass_flops(size, 40), pass_flops(size, 30)
    assert found.flops.high == pytest.approx(10 * baseline + 12 * (10 * target + 20 * baseline))
    # What is added at the input of the first layer is run through all three blocks, and of the second through two.
    assert size.layers == 3
    assert WORK.allowed == 2
    from_its_layer = (baseline - size.per_logits) * (1 + 2 / 3) / 2 + size.per_logits
    assert found.flops.low == pytest.approx(10 * baseline + 12 * 10 * from_its_layer)
    divergence = named(size, replace(WORK, induces=False))["selection"]
    assert divergence.flops.low == pytest.approx(10 * baseline + 12 * 10 * baseline)
    assert divergence.flops.high == found.flops.high


def test_activations_read_no_logits(size: ModelSize) -> None:
    found = named(size, WORK)["activations"]
    assert found.passes.low == found.passes.high == 60
    assert found.flops.low == pytest.approx(30 * pass_flops(size, 40, 0) + 30 * pass_flops(size, 30, 0))
    two = named(size, replace(WORK, targets=2))["activations"]
    assert two.passes.low == 90


def test_a_common_prefix_is_run_once_for_each_edit(size: ModelSize) -> None:
    work = replace(WORK, target=Lengths.all_alike(30), prefix=24)
    found = named(size, work)
    assert found["activations"].tokens.low == 2 * (24 + 30 * (30 - 24))
    assert found["selection"].tokens.low == (1 + 12) * (24 + 10 * (30 - 24))
    counts = size.counts
    tokens, pairs = 24 + 30 * 6, 24**2 + 30 * 6 * 30
    assert found["activations"].flops.low == pytest.approx(2 * (counts.per_token * tokens + counts.per_pair * pairs))


def test_answers_take_from_their_first_token_to_the_limit(size: ModelSize) -> None:
    found = named(size, WORK)["confirmation"]
    assert found.flops.low == pytest.approx(2 * 7 * pass_flops(size, 40))
    decoded = sum(size.counts.per_token + size.per_logits + size.counts.per_pair * keys for keys in range(41, 41 + 7))
    assert found.flops.high == pytest.approx(4 * 7 * (pass_flops(size, 40) + decoded))


def test_only_what_is_asked_for_is_planned(size: ModelSize) -> None:
    bare = replace(WORK, confirm=0, trials=0, n_evaluate=0, n_more=0, answers=0, first_tokens=0)
    assert list(named(size, bare)) == ["load", "activations", "selection", "control", "bake", "verify"]
    everything = ["load", "judged answers", "first tokens", "activations", "selection", "more prompts", "control"]
    assert list(named(size, WORK)) == [*everything, "confirmation", "search", "bake", "verify", "evaluate"]
    assert named(size, WORK)["search"].passes.low == 50 * (10 + 10)


def test_offloaded_each_request_reads_the_blocks_once(size: ModelSize) -> None:
    found = named(size, replace(WORK, offload=True))
    assert "load" not in found
    assert found["activations"].bytes_read.low == size.blocks_bytes + min(
        size.embedding_bytes, 60 * 35 * size.row_bytes
    )
    assert found["selection"].bytes_read.high >= 4 * (size.blocks_bytes + size.unembedding_bytes)
    more = named(size, replace(WORK, offload=True, n_train=200))["activations"]
    assert more.bytes_read.low <= size.blocks_bytes + size.embedding_bytes
    inside = named(size, WORK)
    assert inside["activations"].bytes_read.high == inside["selection"].bytes_read.high == 0
    assert inside["load"].bytes_read.low == inside["bake"].bytes_read.low == size.checkpoint_bytes
    assert inside["bake"].bytes_written == size.checkpoint_bytes


def test_processes_share_the_arithmetic_and_each_reads_the_model(size: ModelSize) -> None:
    one, three = (named(size, replace(WORK, processes=count), RATES) for count in (1, 3))
    assert three["load"].bytes_read.low == 3 * one["load"].bytes_read.low
    assert three["load"].seconds == one["load"].seconds
    assert three["activations"].flops == one["activations"].flops
    assert one["activations"].seconds is not None
    assert three["activations"].seconds is not None
    assert three["activations"].seconds.high == pytest.approx(one["activations"].seconds.high / 3)


def test_seconds_are_work_over_rates(size: ModelSize) -> None:
    found = named(size, WORK, RATES)["activations"]
    assert found.seconds is not None
    assert found.seconds.low == pytest.approx(found.flops.low / 1e12 / SPREAD)
    assert found.seconds.high == pytest.approx(found.flops.high / 1e12 * SPREAD)
    assert named(size, WORK)["activations"].seconds is None
    bake = named(size, WORK, RATES)["bake"].seconds
    assert bake is not None
    assert bake.low == pytest.approx(size.checkpoint_bytes / 5e8)


def test_memory_offloaded_is_that_of_a_block_whatever_the_number_of_blocks() -> None:
    config = family_config("llama")
    few = model_size(config, None)
    config.num_hidden_layers = 12
    many = model_size(config, None)
    work = replace(WORK, offload=True)
    assert memory_need(few, work).weights == memory_need(many, work).weights == few.block_bytes
    assert memory_need(many, WORK).weights == many.parameter_bytes > 2 * few.parameter_bytes
    assert memory_need(few, WORK).embeddings == 0
    assert memory_need(few, work).hidden_states > memory_need(few, WORK).hidden_states
    parts = memory_need(few, work).to_dict()
    on_device = parts.pop("on_device")
    assert parts.pop("total") == sum(parts.values()) == on_device + parts["program"] + parts["activations"]
    # Where a device computes, the next block is fetched ahead.
    assert memory_need(few, work, "cuda").weights == 2 * few.block_bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prefix": 30}, "`prefix_tokens=30`: must be from 0 on and less than a prompt has \\(30 tokens\\)"),
        ({"processes": 0}, "`processes=0`: must be at least 1"),
        ({"trials": -1}, "`trials=-1`: must be at least 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(WORK, **change)
