"""What a model is asked is the same however it is asked.

In one batch or many, with the prompts' common beginning run once or for each, variants mixed or one by one, and resumed
from the plain model's stream or run whole.
"""

from contextlib import contextmanager

import pytest
import torch

from tests.helpers.mixed_edits import CLOSE, edits, prompts
from tests.helpers.small_families import FAMILIES, WHOLE, small
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.runtime import forward_pass, passes, prefix, request
from weight_edit.runtime.activations import mean_residuals, residuals, residuals_under
from weight_edit.runtime.forward import answers_under, next_token, next_token_logprobs
from weight_edit.runtime.hooks import PASS, Hook, addition_hook, hooked
from weight_edit.runtime.passes import run_model
from weight_edit.runtime.points import all_points
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant, by_rows

ALL = (*FAMILIES, *WHOLE)


def logits(model, sequences, variants, **options) -> torch.Tensor:
    """(variants, prompts, vocabulary)."""
    found = next_token(
        model, sequences, lambda _, some: list(some.clone()), variants=variants, description=None, **options
    )
    return torch.stack([torch.stack(rows) for rows in found])


def one_by_one(model, sequences, variants) -> torch.Tensor:
    """The same, each prompt alone under the hooks of each variant, by transformers alone."""
    rows = []
    for variant in variants:
        with torch.no_grad(), hooked(model.model, variant.hooks):
            rows.append(torch.stack([model.model(torch.tensor([some])).logits[0, -1] for some in sequences]))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ALL)
def test_variants_in_one_batch_are_what_each_prompt_gives_alone_under_each(family, counted):
    model, sequences = small(family), prompts()
    variants = edits(model)
    found = logits(model, sequences, variants)
    expected = one_by_one(model, sequences, variants)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected[1:] - expected[0]).abs().amax(dim=(1, 2)).min() > 1e-2, "every edit does something"
    assert max(len(batch.runs) for batch in counted) == len(variants)
    with_cache = family in FAMILIES and prefix.narrowest(model) >= prefix.LEAST
    assert any(batch.cache is not None for batch in counted) == with_cache


@pytest.mark.parametrize("family", ALL)
def test_a_prefix_run_once_changes_nothing(family, monkeypatch):
    model, sequences = small(family), prompts()
    variants = edits(model)[:3]
    points, positions = all_points(model), [-1, -2, -4]
    sequences = [some for some in sequences if len(some) > 14]
    found = residuals_under(model, variants, sequences, points, positions, description=None)
    monkeypatch.setattr(passes, "common_prefix", lambda *_: [])
    expected = residuals_under(model, variants, sequences, points, positions, batch_size=3, description=None)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_prefix_is_run_once_for_each_variant_and_no_more_of_it_than_is_shared(counted):
    model, sequences = small("llama"), prompts(30)
    logits(model, sequences, edits(model)[:2])
    assert [tuple(batch.ids.shape) for batch in counted if batch.ids.shape[1] == 30] == [(2, 30)]
    rest = [batch for batch in counted if batch.ids.shape[1] != 30]
    assert sum(batch.ids.numel() for batch in rest) < 2 * sum(len(some) for some in sequences) / 2
    assert all(bool(batch.mask[:, -batch.ids.shape[1] :].all()) for batch in rest), "no row holds padding"


@pytest.mark.parametrize("family", ALL)
def test_a_trunk_changes_nothing_to_the_bit(family, counted):
    model, sequences = small(family), prompts()
    variants = edits(model)[3:]
    trunk = Trunk(model, sequences, range(model.anatomy.n_layers))
    plain = logits(model, sequences, [PLAIN], trunk=trunk)
    assert torch.equal(plain, logits(model, sequences, [PLAIN]))
    expected = logits(model, sequences, variants)
    found = logits(model, sequences, variants, trunk=trunk)
    torch.testing.assert_close(found, expected, **CLOSE)
    # Layers that share their keys hand on more than the stream.
    assert trunk.suited == (family != "gemma4_text")


def test_a_trunk_skips_the_blocks_in_front_of_an_edit(counted):
    model, sequences = small("llama"), prompts()
    trunk = Trunk(model, sequences, range(4))
    late = Variant((addition_hook(model, 3, torch.ones(32)),))
    logits(model, sequences, [PLAIN, late], trunk=trunk)
    calls = []
    names = [f"{block.module}.mlp" for block in model.anatomy.blocks]
    with hooked(model.model, [Hook(name, "output", lambda x, name=name: calls.append(name) or x) for name in names]):
        logits(model, sequences, [late], trunk=trunk)
    assert set(calls) == {names[3]}


def test_a_trunk_that_memory_does_not_let_be_tried_is_not_used(monkeypatch):
    model, sequences = small("llama"), prompts()
    trunk = Trunk(model, sequences, [3])
    logits(model, sequences, [PLAIN], trunk=trunk)
    late = Variant((addition_hook(model, 3, torch.ones(32)),))
    as_pass, tried = request.as_pass, []

    def limited(batch, step):
        tried.append(batch)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return as_pass(batch, step)

    monkeypatch.setattr(request, "as_pass", limited)
    found = logits(model, sequences, [late], trunk=trunk)
    torch.testing.assert_close(found, one_by_one(model, sequences, [late]), **CLOSE)
    assert trunk.suited is False
    assert len(tried) > 1


def test_a_trunk_is_of_one_list_of_prompts():
    model, sequences = small("llama"), prompts()
    with pytest.raises(ValueError, match="one list of prompts"):
        logits(model, sequences[1:], [PLAIN], trunk=Trunk(model, sequences, [1]))


def test_an_edit_of_a_parameter_shares_no_batch(counted):
    model, sequences = small("llama"), prompts()
    louder = Variant((Hook("lm_head.weight", "parameter", lambda x: 2 * x),))
    found = logits(model, sequences, [PLAIN, louder, PLAIN])
    torch.testing.assert_close(found[1], 2 * found[0], **CLOSE)
    torch.testing.assert_close(found[2], found[0], **CLOSE)
    assert all(len(set(batch.under)) == 1 for batch in counted)


@contextmanager
def rows_mingled(model, name):
    """Within the context, a module's output is one row of all tokens for whoever hooks it, and rows for its block."""
    module = model.model.get_submodule(name)
    own, handles = module.forward, []

    def turned_back_last(_, args):
        for handle in handles:
            handle.remove()
        # Behind the hooks that are attached by now.
        handles[:] = [module.register_forward_hook(lambda _, __, x: x.reshape(args[0].shape))]

    module.forward = lambda x: own(x).flatten(0, 1)[None]
    seen = module.register_forward_pre_hook(turned_back_last)
    try:
        yield
    finally:
        for handle in (seen, *handles):
            handle.remove()
        del module.forward


def test_modules_that_are_given_no_rows_are_run_one_variant_at_a_time(counted):
    """An expert sees the tokens that are sent to it, whose rows nobody knows."""
    model, sequences = small("llama"), prompts()
    mlp = model.anatomy.blocks[1].module + ".mlp"
    variants = [Variant((Hook(mlp, "output", lambda x: 2 * x),)), PLAIN]
    expected = logits(model, sequences, variants)
    assert not torch.allclose(expected[0], expected[1])
    counted.clear()
    with rows_mingled(model, mlp):
        found = logits(model, sequences, variants)
    torch.testing.assert_close(found, expected, **CLOSE)
    first, *others = [len(set(batch.under)) for batch in counted]
    assert (first, set(others)) == (2, {1})


def test_a_stream_whose_rows_nobody_can_tell_is_refused():
    model, sequences = small("llama"), prompts()

    def step(batch):
        by_rows(torch.zeros(1, batch.ids.numel(), 32), batch)

    with pytest.raises(UnsupportedError, match="look at another point"):
        list(run_model(model, sequences, step))


def test_a_variant_that_is_given_twice_acts_once_on_its_rows(counted):
    model, sequences = small("llama"), prompts()
    plain, *_, late = edits(model)
    found = logits(model, sequences, [late, plain, late])
    torch.testing.assert_close(found, one_by_one(model, sequences, [late, plain, late]), **CLOSE)
    assert any(len(batch.runs) == 3 for batch in counted)


@pytest.mark.parametrize("sequences", [[[]], [[], []], [[5, 6], []]])
def test_sequences_without_tokens_are_refused(sequences):
    model = small("llama")
    with pytest.raises(UsageError, match="has no tokens"):
        next_token_logprobs(model, sequences)
    with pytest.raises(UsageError, match="has no tokens"):
        mean_residuals(model, sequences, all_points(model))


@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "jamba"])
def test_answers_under_variants_are_those_of_each_alone(family):
    model, sequences = small(family), prompts()
    variants = edits(model)[:3]
    answers = [[5, 6, 7], [], [8], [9, 9], [10, 11, 12, 13], [5], [6, 7]]
    found = answers_under(model, sequences, answers, lambda _, some: some.clone(), variants=variants, description=None)
    for rows, variant in zip(found, variants, strict=True):
        with torch.no_grad(), hooked(model.model, variant.hooks):
            for row, prompt, answer in zip(rows, sequences, answers, strict=True):
                whole = model.model(torch.tensor([prompt + answer])).logits[0]
                torch.testing.assert_close(row, whole[len(prompt) - 1 :][: len(answer)], **CLOSE)


def test_running_out_of_memory_changes_nothing(monkeypatch, counted):
    model, sequences = small("llama"), prompts()
    variants = edits(model)
    trunk = Trunk(model, sequences, range(4))
    expected = logits(model, sequences, variants)
    backbone = forward_pass.forward_backbone
    whole = forward_pass.last_logits

    def limited(run):
        def tried(model, batch, *args):
            if len(batch.rows) > 5 and batch.ids.shape[1] != 12:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(model, batch, *args)

        return tried

    monkeypatch.setattr(request, "forward_backbone", limited(backbone))
    monkeypatch.setattr("weight_edit.runtime.forward.last_logits", limited(whole))
    found = logits(model, sequences, variants, trunk=trunk)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert max(len(batch.rows) for batch in counted) > 5
    monkeypatch.setattr("weight_edit.runtime.forward.last_logits", limited(lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        logits(model, sequences, variants)


def test_a_prefix_that_memory_holds_under_few_variants_is_read_in_parts(monkeypatch, counted):
    model, sequences = small("llama"), prompts()
    variants = edits(model)
    backbone = forward_pass.forward_backbone
    tried = []

    def limited(model, batch):
        tried.append(len(batch.rows))
        if len(batch.rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backbone(model, batch)

    # What the request itself runs is the common prefix alone.
    monkeypatch.setattr(request, "forward_backbone", limited)
    found = logits(model, sequences, variants)
    torch.testing.assert_close(found, one_by_one(model, sequences, variants), **CLOSE)
    assert max(tried) > 2
    assert {rows for rows in tried if rows <= 2} == {1, 2}


def test_memory_that_does_not_suffice_for_one_says_so(monkeypatch):
    model = small("llama")

    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UsageError, match="single sequence of 24 tokens"):
        list(run_model(model, prompts(), never))


def test_a_hook_of_a_pass_acts_in_that_pass_alone():
    model, sequences = small("llama"), prompts(0, (4, 4))
    name = model.anatomy.blocks[0].module
    seen = []

    def step(batch):
        with hooked(model.model, [Hook(name, "output", lambda x: seen.append(len(x)) or x)]):
            with torch.no_grad():
                model.model(torch.tensor([[5, 6]]))
            token = PASS.set(None)
            model.model(torch.tensor([[5, 6]]))
            PASS.reset(token)

    list(run_model(model, sequences, step))
    assert seen == [1]


def test_questions_without_prompts_or_edits_have_empty_answers():
    model = small("llama")
    assert next_token_logprobs(model, []).shape == (0, 48)
    assert next_token(model, prompts(), lambda *_: [], variants=[]) == []
    assert residuals(model, [], all_points(model), [-1]).shape == (0, 1, 12, 32)
    assert mean_residuals(model, [], all_points(model)).shape == (0, 12, 32)
