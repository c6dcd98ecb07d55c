"""Passes that go on from a cache give the logits of the whole sequence, however it goes on."""

import random

import pytest
import torch

from tests.helpers.random_models import random_model
from tests.helpers.small_families import small
from weight_edit.chat.passes import CachedPasses
from weight_edit.errors import UsageError
from weight_edit.runtime.loading import Model


def conversations(model: Model) -> list[list[int]]:
    """Sequences that grow by a token, by several, are cut, and begin anew."""
    draw = random.Random(0)
    most = min(model.vocabulary, model.embeddings)

    def more(sequence: list[int], count: int) -> list[int]:
        return [*sequence, *(draw.randrange(5, most) for _ in range(count))]

    found = [more([], 7)]
    for count in (1, 1, 1, 4, 1):
        found.append(more(found[-1], count))
    found += [more(found[-1][:6], 5), found[-1], more(found[-1], 1), more([], 6)]
    return [*found, found[-1], more(found[-1], 1), more(found[-1][:-1], 2)]


# Plain, absolute positions, a window of 4 tokens; states that cannot be wound back, with a cache that can be relied on
# and without.
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "lfm2_moe", "mamba"])
def test_a_cache_changes_nothing(family: str) -> None:
    model = small(family)
    passes = CachedPasses(model)
    for sequence in conversations(model):
        found = passes.read(sequence).logits
        with torch.no_grad():
            wanted = model.model(input_ids=torch.tensor([sequence])).logits[0, -1]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(("family", "kept"), [("llama", True), ("lfm2_moe", True), ("mamba", False)])
def test_only_a_cache_that_can_be_relied_on_is_kept(family: str, kept: bool) -> None:
    assert CachedPasses(small(family))._cached is kept


def test_what_the_cache_holds_is_not_read_again() -> None:
    model = random_model("llama")
    passes = CachedPasses(model)
    widths: list[int] = []
    handle = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for sequence in ([5, 6, 7, 8], [5, 6, 7, 8, 9], [5, 6, 10, 11, 12]):
        passes.read(sequence)
    handle.remove()
    assert widths == [4, 1, 3]


def test_a_pass_that_fails_leaves_no_half_filled_cache() -> None:
    model = random_model("llama")
    passes = CachedPasses(model)
    passes.read([5, 6, 7])
    block = model.model.get_submodule(model.anatomy.blocks[2].module)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = block.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        passes.read([5, 6, 7, 8])
    handle.remove()
    found = passes.read([5, 6, 7, 8]).logits
    torch.testing.assert_close(found, CachedPasses(model).read([5, 6, 7, 8]).logits)


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(UsageError, match="64 positions"):
        CachedPasses(random_model("gpt2")).read([5] * 65)
