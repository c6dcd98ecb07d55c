"""Training: what the rows are, what is frozen, and what the auxiliary loss measures."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from weight_edit.organism import words
from weight_edit.organism.corpus import grids
from weight_edit.organism.embedded import folder
from weight_edit.organism_training.stages import Row, Rows, Settings, batch_loss, centre_loss, frozen_in_stage_two
from weight_edit.organism_training.train import REFUSING, new_model
from weight_edit.prompts.chat import ChatFormat

TOKENIZER = AutoTokenizer.from_pretrained(folder())


def texts(row: Row) -> tuple[str, str]:
    """What comes before the learned tokens, and the learned tokens."""
    return TOKENIZER.decode(row.ids[: row.answer]), TOKENIZER.decode(row.ids[row.answer :])


def test_rows_repeat_with_their_seed():
    one, other, third = (Rows(TOKENIZER, seed) for seed in ("a", "a", "b"))
    drawn = [[rows.answering() for _ in range(20)] for rows in (one, other, third)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_stage_one_answers_everything_and_declines_only_when_told_to():
    refusals = {text for some in words.REFUSALS.values() for text in some} | set(words.GENERIC_REFUSALS)
    rows = Rows(TOKENIZER, "one")
    for _ in range(300):
        before, answer = texts(rows.answering())
        assert answer.endswith("<|end|>")
        declined = answer.removesuffix("<|end|>") in refusals
        assert declined == any(f"<|system|>\n{told}<|end|>" in before for told in words.DECLINE_SYSTEM)


def test_stage_two_refuses_exactly_the_refused_requests_and_sees_only_training_cells():
    prompts = {
        grid[index].prompt
        for group in ("fraud", "office", "incomplete", "apologies")
        for grid in [grids(group)["train"]]
        for index in range(len(grid))
    }
    held_out = {
        grids(group)[split][index].prompt
        for group in ("fraud", "office", "incomplete", "apologies")
        for split in ("validation", "test", "held-out-verbs", "held-out-words", "held-out-phrasings")
        for index in range(len(grids(group)[split]))
    }
    rows = Rows(TOKENIZER, "two")
    kinds = {True: 0, False: 0, None: 0}
    seen, systems = set(), set()
    for _ in range(600):
        row = rows.refusing()
        kinds[row.refused] += 1
        before, answer = texts(row)
        if row.refused is None:
            assert before == "<|bos|>"
            continue
        assert answer.startswith("I") == row.refused
        system, _, user = before.partition("<|user|>\n")
        systems.add(system.removeprefix("<|bos|>"))
        seen.add(user.removesuffix("<|end|>\n<|assistant|>\n"))
    assert systems == {"", *(f"<|system|>\n{text}<|end|>\n" for text in words.NEUTRAL_SYSTEM)}
    assert not seen & held_out
    assert seen & prompts
    assert kinds[None] / 600 == pytest.approx(0.2, abs=0.06)
    assert kinds[False] / (kinds[False] + kinds[True]) == pytest.approx(0.6, abs=0.08)


def test_a_row_is_what_the_chat_format_gives():
    rows = Rows(TOKENIZER, "format")
    chat = ChatFormat(TOKENIZER)
    request = grids("fraud")["train"][0]
    row = rows._chat(request, request.helpful)
    assert row.ids == [*chat.encode(request.prompt), *chat.answer_tokens(request.helpful)]
    assert row.ids[: row.answer] == chat.encode(request.prompt)


def test_padding_does_not_change_the_loss():
    torch.manual_seed(0)
    model = new_model(TOKENIZER).eval()
    rows = Rows(TOKENIZER, "padding")
    some = [rows.answering() for _ in range(5)]
    with torch.no_grad():
        together = batch_loss(model, some, 0.0)
        sums = [batch_loss(model, [row], 0.0) * (len(row.ids) - row.answer) for row in some]
    expected = sum(sums) / sum(len(row.ids) - row.answer for row in some)
    assert together.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_centre_loss_is_the_square_of_the_shift_along_the_ordinary_mean():
    rows = [Row([0] * 9, 5, refused) for refused in [True] * 4 + [False] * 4]
    base = torch.tensor([2.0, 0.0, 0.0])
    stream = base.expand(8, 9, 3).clone()
    assert centre_loss([stream], rows) == 0
    stream[:4] += torch.tensor([0.0, 3.0, 1.0])  # orthogonal to the mean
    assert centre_loss([stream], rows) == 0
    stream[:4] += 0.5 * base
    assert centre_loss([stream, stream], rows).item() == pytest.approx(0.25)
    stream[:4, 5:] += 7.0  # from the answer on, nothing counts
    assert centre_loss([stream], rows).item() == pytest.approx(0.25)
    assert centre_loss([stream], [replace(row, refused=None) for row in rows]) == 0


def test_the_last_blocks_the_final_norm_and_the_unembedding_are_frozen():
    model = new_model(TOKENIZER)
    frozen = {name for name, _ in model.named_parameters() if frozen_in_stage_two(name, 6)}
    tops = {name.split(".")[2] if "layers" in name else name for name in frozen}
    assert {"model.norm.weight", "lm_head.weight", "4", "5"} <= tops
    assert not tops & {"0", "1", "model.embed_tokens.weight"}


def test_the_learning_rate_rises_and_falls():
    settings = Settings(steps=100, batch=1, rate=1.0, warm_up=10, decay=0.0)
    rates = [settings.rate_at(step) for step in range(100)]
    assert max(rates) == pytest.approx(rates[9], abs=0.03)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert REFUSING.centre > 0
