"""Texts behind prompts have the logits that each has alone, also where their prompt is read once for all of them."""

import pytest
import torch

from tests.helpers.mixed_edits import CLOSE, edits, prompts
from tests.helpers.small_families import FAMILIES, WHOLE, small
from weight_edit.errors import UsageError
from weight_edit.runtime import forward_pass, prefix, request
from weight_edit.runtime.continuations import Branch, continuations_under, read_before, text_logprobs
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.passes import run_model
from weight_edit.runtime.stems import Stems
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import Variant

ALL = (*FAMILIES, *WHOLE)
TEXTS = [[[5, 6, 7], [8]], [[9, 9, 10]], [[5], [6, 7, 8, 9], [11, 12]], [], [[7, 8], [7, 9]], [[13]], [[5, 6], [14]]]


def logits(model, asked, texts, variants, **options) -> list[torch.Tensor]:
    """Of each text of each prompt under each variant, (tokens, vocabulary)."""

    def read(branches, found):
        rows = [row[each.columns].clone() for row, each in zip(found, branches, strict=True)]
        assert [len(row) for row in rows] == [len(texts[each.prompt][each.continuation]) for each in branches]
        return rows

    found = continuations_under(model, asked, texts, read, variants=variants, description=None, **options)
    assert [[len(some) for some in rows] for rows in found] == [[len(some) for some in texts]] * len(variants)
    return [each for rows in found for some in rows for each in some]


def alone(model, asked, texts, variants) -> list[torch.Tensor]:
    """The same, each text behind its prompt in a pass of its own, by transformers alone."""
    rows = []
    for variant in variants:
        with torch.no_grad(), hooked(model.model, variant.hooks):
            for prompt, some in zip(asked, texts, strict=True):
                for text in some:
                    whole = model.model(torch.tensor([[*prompt, *text]])).logits[0]
                    rows.append(whole[len(prompt) - 1 : -1])
    return rows


def behind_plain(model, asked, texts, variants, own) -> list[torch.Tensor]:
    """The same, where the hooks see the last tokens of the prompt and the text alone."""
    rows = []
    for variant in variants:
        for prompt, some in zip(asked, texts, strict=True):
            for text in some:
                seen = own + len(text)

                def late(fn, seen=seen):
                    return lambda x: torch.cat([x[..., :-seen, :], fn(x[..., -seen:, :])], dim=-2)

                hooks = [Hook(each.module, each.where, late(each.fn)) for each in variant.hooks]
                with torch.no_grad(), hooked(model.model, hooks):
                    whole = model.model(torch.tensor([[*prompt, *text]])).logits[0]
                rows.append(whole[len(prompt) - 1 : -1])
    return rows


def close(found, expected) -> None:
    """Tensor by tensor."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("shared", [12, 0])
@pytest.mark.parametrize("family", ALL)
def test_texts_are_what_each_gives_alone_under_each_variant(family, shared, counted):
    model, asked = small(family), prompts(shared, (9, 11, 17, 7, 12, 2, 5))
    variants = edits(model)[:3]
    found = logits(model, asked, TEXTS, variants)
    close(found, alone(model, asked, TEXTS, variants))
    stems = [batch for batch in counted if batch.cache is not None and len(batch.rows) == 3 * len(variants)]
    assert bool(stems) == (family in FAMILIES and prefix.narrowest(model) >= 28), (
        "three prompts have several texts that part before their last token"
    )


@pytest.mark.parametrize("own", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_that_were_read_before_are_those_of_the_plain_model(family, own):
    model, asked = small(family), prompts(6, (9, 11, 17, 7, 12, 2, 5))
    variants = edits(model)[:3]
    before = read_before(model, asked, own=own)
    if before is None:
        assert prefix.narrowest(model) < 23 - own
        return
    found = logits(model, asked, TEXTS, variants, before=before)
    expected = behind_plain(model, asked, TEXTS, variants, own)
    close(found, expected)
    whole = alone(model, asked, TEXTS, variants[1:])
    texts = len(found) // 3
    close(found[:texts], alone(model, asked, TEXTS, variants[:1]))
    assert max(float((one - other).abs().max()) for one, other in zip(expected[texts:], whole, strict=True)) > 1e-2


def test_some_of_the_prompts_that_were_read_before_can_be_asked_about(counted):
    model, asked = small("llama"), prompts(6, (9, 11, 17, 7, 12, 2, 5))
    variants = edits(model)[:3]
    before = read_before(model, asked, batch_size=2)
    counted.clear()
    some = [4, 0, 2]
    found = logits(model, [asked[row] for row in some], [TEXTS[row] for row in some], variants, before=before)
    close(found, behind_plain(model, [asked[row] for row in some], [TEXTS[row] for row in some], variants, 1))
    assert {batch.ids.shape[1] for batch in counted} <= {1, 2, 3, 4}, "no prompt is read again"
    with pytest.raises(ValueError, match="prompt 1 was not read"):
        logits(model, [asked[0], [5, 6]], [[[5]], [[6]]], variants, before=before)


@pytest.mark.parametrize("family", WHOLE)
def test_prompts_are_not_read_before_where_a_cache_has_no_rows(family):
    assert read_before(small(family), prompts()) is None


def test_prompts_without_a_token_to_spare_are_read_with_their_texts():
    model, asked = small("llama"), [[5], [6, 7, 8]]
    texts = [[[5, 6], [7]], [[8], [9, 10]]]
    variants = edits(model)[:2]
    assert read_before(model, asked) is None
    close(logits(model, asked, texts, variants), alone(model, asked, texts, variants))
    with pytest.raises(ValueError, match="at least 1"):
        read_before(model, asked, own=0)


def test_a_prompt_is_read_once_for_all_its_texts(counted):
    model, asked = small("llama"), prompts(0, (30, 30, 30))
    texts = [[[5, 6], [7, 8], [9, 10], [11, 12]]] * 3
    found = logits(model, asked, texts, edits(model)[:2])
    assert sorted(tuple(batch.ids.shape) for batch in counted) == [(6, 29), (24, 2)]
    close(found, alone(model, asked, texts, edits(model)[:2]))


def test_what_two_texts_have_in_front_of_their_last_tokens_is_read_once(counted):
    model, asked = small("llama"), prompts(0, (30, 30, 30))
    texts = [[[5, 6], [7, 8], [5, 9], [5, 6]]] * 3
    before = read_before(model, asked)
    for options in ({}, {"before": before}):
        counted.clear()
        found = logits(model, asked, texts, edits(model)[:1], **options)
        assert tuple(counted[-1].ids.shape) == (6, 2)
        close(found, alone(model, asked, texts, edits(model)[:1]))


def test_running_out_of_memory_changes_no_text(monkeypatch):
    model, asked = small("llama"), prompts(12, (9, 11, 17, 7, 12, 2, 5))
    variants = edits(model)
    whole, tried = forward_pass.last_logits, []

    def limited(model, batch, count):
        tried.append(len(batch.rows))
        if len(batch.rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(model, batch, count)

    monkeypatch.setattr("weight_edit.runtime.continuations.last_logits", limited)
    close(logits(model, asked, TEXTS, variants), alone(model, asked, TEXTS, variants))
    assert max(tried) > 3


def test_a_cache_that_a_stem_does_not_fill_is_done_without(monkeypatch):
    model, asked = small("llama"), prompts(0, (30, 30, 30))
    texts = [[[5, 6], [7, 8]]] * 3
    monkeypatch.setattr(request, "filled", lambda _: False)
    close(logits(model, asked, texts, edits(model)[:2]), alone(model, asked, texts, edits(model)[:2]))


def test_a_parameter_that_is_edited_shares_no_batch(counted):
    model, asked = small("llama"), prompts(0, (30, 30, 30))
    louder = Variant((Hook("lm_head.weight", "parameter", lambda x: 2 * x),))
    found = logits(model, asked, TEXTS[:3], [Variant(), louder])
    close([2 * each for each in found[:6]], found[6:])
    assert all(len(set(batch.under)) == 1 for batch in counted)


def test_texts_without_tokens_are_refused():
    model = small("llama")
    with pytest.raises(UsageError, match="prompt 1 or a continuation of it has no tokens"):
        logits(model, [[5], [6]], [[[5]], [[]]], [Variant()])
    with pytest.raises(UsageError, match="each prompt has its own"):
        logits(model, [[5], [6]], [[[5]]], [Variant()])
    assert logits(model, [[5], [6]], [[], []], [Variant()]) == []


def test_stems_and_a_trunk_do_not_go_together():
    model, asked = small("llama"), prompts()
    stems = Stems(tokens=asked, of=range(len(asked)))
    with pytest.raises(ValueError, match="give no trunk"):
        list(run_model(model, asked, lambda batch: None, stems=stems, trunk=Trunk(model, asked, [1])))


@pytest.mark.parametrize("last", [False, True])
def test_log_probabilities_of_texts_are_sums_over_their_own_tokens(last):
    rows = torch.randn(3, 4, 11, generator=torch.Generator().manual_seed(0))
    texts = [[3, 1, 4, 1], [5], [9, 2]]
    columns = [slice(4 - len(text), 4) if last else slice(0, len(text)) for text in texts]
    branches = [Branch(0, 0, row, each) for row, each in enumerate(columns)]
    expected = []
    for row, text, each in zip(rows.double().log_softmax(-1), texts, columns, strict=True):
        expected.append(sum(float(row[each][at, token]) for at, token in enumerate(text)))
    found = text_logprobs(rows, branches, texts)
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-5, rtol=1e-6)


def test_branches_name_variant_prompt_and_continuation():
    model, asked = small("llama"), prompts()
    seen = []
    texts = [[[5]] * (row % 3) for row in range(len(asked))]

    def read(branches, found):
        seen.extend((each.variant, each.prompt, each.continuation) for each in branches)
        return [0] * len(found)

    continuations_under(model, asked, texts, read, variants=edits(model)[:2], description=None)
    expected = {(variant, row, each) for variant in range(2) for row in range(7) for each in range(row % 3)}
    assert set(seen) == expected
    assert len(seen) == len(expected)
