"""What an edit costs by probabilities: divergences along the base's own answers, what these cost, and texts.

Every figure is held against a plain forward pass of one sequence.
"""

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import WORDS, channel_tokenizer
from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.continuation import beside, own_answers
from weight_edit.evaluation.divergence import divergence
from weight_edit.evaluation.evaluate import evaluate, evaluate_in_turn, measured
from weight_edit.evaluation.figures import differences, figures, figures_of_base
from weight_edit.evaluation.first_token import first_token_logprobs
from weight_edit.evaluation.loaders import loader_of
from weight_edit.evaluation.loss import Nats, loss_difference, loss_of
from weight_edit.evaluation.means import mean_comparison, ratio_comparison
from weight_edit.evaluation.probabilities import BaseLogprobs
from weight_edit.evaluation.questions import questions_of
from weight_edit.evaluation.target import ModelTarget, target_of
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime import memory
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import Model, load

FAMILIES = ("llama", "gpt2", "gemma3")
ANSWERED = PromptSet.of(
    "answered", ["how to make bread", "tell me the way", "a red house", "paint", "cut the blue bread here"]
)
REFUSED = PromptSet.of("refused", ["steal cars", "how to steal a house"], ["sure here is the way", None])
TEXTS = PromptSet.of("texts", ["a red house here", "the way to make blue bread is sure", "cut paint"])


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request) -> tuple[Model, Model]:
    return random_model(request.param, 0), random_model(request.param, 1)


def logits(model: Model, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)


def literal(base: Model, edited: Model, count: int) -> tuple[list[list[float]], list[list[Nats]]]:
    """The divergence at each position of each answer, and what each answer costs both, by passes of one sequence."""
    apart, costs = [], [[], []]
    for prompt in ANSWERED.prompts:
        asked = ChatFormat(base.tokenizer).encode(prompt)
        (said,) = generate(base, [asked], max_new_tokens=20)
        whole = [*asked, *said.tokens]
        p, q = (logits(each, whole)[len(asked) - 1 : -1] for each in (base, edited))
        apart.append((p.exp() * (p - q)).sum(-1)[:count].tolist())
        for model, found in zip((p, q), costs, strict=True):
            chosen = model.gather(-1, torch.tensor(said.tokens)[:, None])
            found.append(Nats(-float(chosen.sum()), len(said.tokens)))
    return apart, costs


def test_both_models_read_the_bases_own_answers(pair) -> None:
    base, edited = pair
    found = evaluate(edited, answered=ANSWERED, against=base, kl_tokens=6, max_new_tokens=20)
    apart, (before, after) = literal(base, edited, 6)
    assert found.continuation is not None
    assert found.continuation.per_prompt.tolist() == pytest.approx([sum(row) / len(row) for row in apart], rel=1e-4)
    assert found.continuation.mean == pytest.approx(float(found.continuation.per_prompt.mean()))
    columns = [[row[position] for row in apart if len(row) > position] for position in range(6)]
    there = [column for column in columns if column]
    assert found.continuation.per_position == pytest.approx([sum(row) / len(row) for row in there], rel=1e-4)
    assert found.continuation.counts == tuple(map(len, there))
    assert found.divergence is not None
    assert found.continuation.per_position[0] == found.divergence.mean
    assert found.own_answers is not None
    assert found.own_answers.base is not None
    assert found.own_answers.base.mean == pytest.approx(loss_of(before).mean, rel=1e-5)
    assert found.own_answers.loss.mean == pytest.approx(loss_of(after).mean, rel=1e-5)
    assert found.own_answers.difference is not None
    expected = loss_of(after).mean - loss_of(before).mean
    assert found.own_answers.difference.value == pytest.approx(expected, rel=1e-4)
    assert found.base is not None
    assert found.base.own_answers is not None
    assert found.base.own_answers.loss == found.own_answers.base


def test_the_base_itself_has_no_divergence(pair) -> None:
    base, _ = pair
    found = evaluate(base, answered=ANSWERED, text=TEXTS, against=base, max_new_tokens=4)
    assert found.continuation is not None
    assert (found.divergence.max, found.continuation.mean, max(found.continuation.per_position)) == (0, 0, 0)
    assert found.own_answers.difference.value == found.text.read.difference.value == 0
    assert not found.own_answers.difference.told


def test_ordinary_prompts_that_the_base_refuses_stand_apart() -> None:
    """Of what an evaluation shows, by the base's own answers."""
    sets = [load_prompts(f"organism:{name}:test").at_most(count) for name, count in (("answered", 5), ("refused", 3))]
    mixed = PromptSet.of("mixed", [prompt for some in sets for prompt in some.prompts])
    base = load("organism")
    found = evaluate(base, answered=mixed, against=base).to_dict()
    assert {name: each["count"] for name, each in found["continuation_by_base"].items()} == {
        "answered": 5,
        "refused": 3,
    }
    shown = figures(found)
    assert shown["KL divergence over the same tokens, 5 prompts that the base answers (nats)"].startswith("0.0000")


def test_one_position_is_the_first_token(pair) -> None:
    base, edited = pair
    found = evaluate(edited, answered=ANSWERED, against=base, kl_tokens=1, max_new_tokens=3)
    assert found.continuation.per_prompt.tolist() == found.divergence.per_prompt.tolist()
    alone = evaluate(edited, answered=ANSWERED, base_logprobs=first_token_logprobs(base, ANSWERED), max_new_tokens=3)
    assert alone.divergence.per_prompt.tolist() == pytest.approx(found.divergence.per_prompt.tolist(), rel=1e-4)
    given = first_token_logprobs(base, ANSWERED)
    beside = evaluate(edited, answered=ANSWERED, against=base, base_logprobs=given, max_new_tokens=3)
    assert beside.divergence.per_prompt.tolist() == alone.divergence.per_prompt.tolist()
    assert alone.continuation is None
    assert alone.own_answers is None


def test_in_memory_in_turn_and_with_what_was_kept_agree(pair) -> None:
    base, edited = pair
    asked = {"refused": REFUSED, "answered": ANSWERED}
    settings = {"text": TEXTS, "max_new_tokens": 5, "kl_tokens": 4}
    here = evaluate(edited, against=base, **asked, **settings)
    questions = questions_of(asked, **settings)
    turn = evaluate_in_turn(loader_of(base), loader_of(edited), questions)
    assert turn.to_dict() == here.to_dict()
    kept = ModelTarget(base, ChatFormat(base.tokenizer)).base_logprobs(questions)
    again = evaluate(edited, base_logprobs=kept, **asked, **settings).to_dict()
    for name in ("divergence", "continuation", "own_answers", "text"):
        assert again[name] == here.to_dict()[name]


def test_the_answers_of_the_evaluation_are_read_and_not_given_again(pair, monkeypatch) -> None:
    base, edited = pair
    import weight_edit.evaluation.target as target

    calls = []
    real = target.generate
    monkeypatch.setattr(target, "generate", lambda *given, **options: calls.append(options) or real(*given, **options))
    asked = {"answered": ANSWERED, "refused": replace(ANSWERED, name="again")}
    found = evaluate(edited, **asked, against=base, max_new_tokens=5, kl_tokens=4)
    assert len(calls) == 2, "one generation for each model, whatever sets there are"
    assert [a.answer for a in found.answers[:5]] == [a.answer for a in found.answers[5:]]
    # Answers that are shorter than the divergence asks for are given anew.
    evaluate(edited, **asked, against=base, max_new_tokens=3, kl_tokens=4)
    assert [options["max_new_tokens"] for options in calls] == [5, 5, 3, 4, 3]


def test_first_tokens_are_read_off_the_answers(pair) -> None:
    """No prompt that is answered is run again for its first token, and the divergence is that of a pass of its own."""
    base, edited = pair
    given = first_token_logprobs(base, ANSWERED)
    want = divergence(given, first_token_logprobs(edited, ANSWERED))
    passes: list[int] = []
    handle = edited.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        target = target_of(edited)
        questions = questions_of({"answered": ANSWERED, "refused": REFUSED}, max_new_tokens=5)
        alone = measured(target, questions)
        count = len(passes)
        found = measured(target, questions, BaseLogprobs(first=given))
    finally:
        handle.remove()
    assert len(passes) == 2 * count
    assert found.divergence.per_prompt.tolist() == pytest.approx(want.per_prompt.tolist(), rel=1e-4)
    assert found.divergence.agreement == want.agreement
    assert [each.answer for each in found.answers] == [each.answer for each in alone.answers]


def test_a_base_of_another_vocabulary_is_refused_before_any_answer(pair, monkeypatch) -> None:
    _, edited = pair
    monkeypatch.setattr("weight_edit.evaluation.target.generate_and_read", None)
    with pytest.raises(UsageError, match=r"not \(5, 7\) of the base and \(5, \d+\)"):
        evaluate(edited, answered=ANSWERED, base_logprobs=torch.zeros(5, 7))


def test_answers_that_were_needed_ahead_are_given_once(pair) -> None:
    base = pair[0]
    questions = questions_of({"answered": ANSWERED}, max_new_tokens=5)
    target = target_of(base)
    first = target.first_logprobs(questions)
    settings = {"max_new_tokens": 5, "lengths": (), "description": None}
    ahead = target.spoken(ANSWERED.prompts, **settings)
    torch.testing.assert_close(first, first_token_logprobs(base, ANSWERED), atol=1e-4, rtol=0)
    calls: list[int] = []
    handle = base.model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        assert target.spoken(ANSWERED.prompts, **settings) == ahead
        assert len(calls) >= 5
    finally:
        handle.remove()


def test_batches_of_one_agree_up_to_rounding(pair) -> None:
    base, edited = pair
    one, many = (
        evaluate(edited, answered=ANSWERED, text=TEXTS, against=base, max_new_tokens=5, batch_size=size)
        for size in (1, 32)
    )
    assert one.continuation.per_position == pytest.approx(many.continuation.per_position, rel=1e-3)
    assert one.own_answers.loss.mean == pytest.approx(many.own_answers.loss.mean, rel=1e-5)
    assert one.text.read.loss.mean == pytest.approx(many.text.read.loss.mean, rel=1e-5)


def test_an_opening_is_forced_before_the_answers_that_are_read() -> None:
    tokenizer = channel_tokenizer()
    base, edited = (
        Model.from_parts(random_model("llama", seed).model, tokenizer, name=f"channels-{seed}") for seed in (0, 1)
    )
    chat = ChatFormat(tokenizer)
    assert chat.opening
    found = evaluate(edited, answered=ANSWERED, against=base, kl_tokens=3, max_new_tokens=4)
    asked = [chat.encode_opened(prompt) for prompt in ANSWERED.prompts]
    said = [each.tokens for each in generate(base, asked, max_new_tokens=4)]
    along = beside(edited, asked, own_answers(base, asked, said, 3))
    assert found.continuation.per_position == pytest.approx(along.continuation.per_position, rel=1e-4)
    p, q = (logits(model, asked[0])[-1] for model in (base, edited))
    assert float(found.divergence.per_prompt[0]) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)


def test_texts_are_read_as_they_are(pair) -> None:
    base, edited = pair
    found = evaluate(edited, text=TEXTS, against=base)
    costs = []
    for text in TEXTS.prompts:
        tokens = [base.tokenizer.convert_tokens_to_ids(word) for word in text.split()]
        rows = logits(edited, tokens)[:-1].gather(-1, torch.tensor(tokens[1:])[:, None])
        costs.append(Nats(-float(rows.sum()), len(tokens) - 1))
    assert found.text.read.loss.mean == pytest.approx(loss_of(costs).mean, rel=1e-5)
    assert (found.text.read.loss.tokens, found.text.read.loss.answers) == (sum(c.tokens for c in costs), 3)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["text"]["perplexity"] == pytest.approx(math.exp(document["text"]["mean"]))
    assert document["text"]["base"]["mean"] == document["base"]["text"]["mean"]
    assert document["text"]["difference"]["count"] == 3
    assert (document["sets"], document["divergence"], found.answers) == ({}, None, ())
    shown = figures(document)
    assert list(shown) == ["cross-entropy of the texts (nats per token)", "perplexity of the texts"]
    assert "[" in differences(document)["cross-entropy of the texts (nats per token)"]


def test_long_texts_are_cut_and_said_to_be() -> None:
    model = random_model("gpt2")  # it has 64 positions
    long = PromptSet.of("long", [" ".join(WORDS * 4), "a red house"])
    found = evaluate(model, text=long).text
    assert (found.cut, found.read.loss.tokens) == (1, 63 + 2)
    with pytest.raises(UsageError, match="no text has two tokens"):
        evaluate(model, text=PromptSet.of("short", ["a"]))


def test_the_table_has_both_models_beside_each_other(pair) -> None:
    base, edited = pair
    document = evaluate(
        edited, answered=ANSWERED, refused=REFUSED, against=base, kl_tokens=4, max_new_tokens=9
    ).to_dict()
    shown = figures(document)
    name = "KL divergence over the base's first 4 answer tokens (nats)"
    low, high = document["continuation"]["low"], document["continuation"]["high"]
    assert shown[name] == f"{document['continuation']['mean']:.4f} [{low:.4f}, {high:.4f}]"
    assert 0 <= low <= document["continuation"]["mean"] <= high
    assert shown["KL divergence at the first answer token (nats)"].endswith("]")
    own = "cross-entropy of the base's own answers (nats per token)"
    of_base = figures(document["base"])[own]
    assert figures_of_base({}, document)[own] == of_base != shown[own]
    assert differences(document)[own].startswith(f"{document['own_answers']['difference']['value']:+.4f} [")


def test_the_loss_of_known_answers_is_compared_answer_by_answer() -> None:
    base, edited = random_model("llama", 0), random_model("llama", 1)
    known = PromptSet.of("known", ANSWERED.prompts, ["sure", "here is the way", None, "blue paint", "red"])
    document = evaluate(edited, answered=known, against=base, max_new_tokens=2).to_dict()
    apart = document["differences"]["answered"]["loss"]
    before, after = (each["sets"]["answered"]["loss"] for each in (document["base"], document))
    assert apart["value"] == pytest.approx(after["mean"] - before["mean"])
    assert (apart["count"], after["answers"]) == (4, 4)
    assert after["low"] < after["mean"] < after["high"]


def test_another_vocabulary_or_number_of_prompts_is_refused() -> None:
    base, other = random_model("llama"), random_model("llama")
    other.model.resize_token_embeddings(60)
    with pytest.raises(UsageError, match=r"\(\d+, 48\) of the base and \(\d+, 60\)"):
        evaluate(other, answered=ANSWERED, against=base, max_new_tokens=2)
    kept = ModelTarget(base, ChatFormat(base.tokenizer)).base_logprobs(questions_of({"answered": ANSWERED}))
    with pytest.raises(UsageError, match="answered 5 prompts and not 2"):
        evaluate(base, answered=ANSWERED.take(2), base_logprobs=kept, max_new_tokens=2)
    with pytest.raises(UsageError, match="`kl_tokens=0`"):
        evaluate(base, answered=ANSWERED, kl_tokens=0)


def test_logits_that_are_no_numbers_fail() -> None:
    broken = random_model("llama", 1)
    with torch.no_grad():
        broken.model.lm_head.weight[7] = math.nan
    with pytest.raises(VerificationError, match="not finite"):
        evaluate(broken, answered=ANSWERED, against=random_model("llama"), max_new_tokens=2)
    with pytest.raises(VerificationError, match="not finite"):
        evaluate(broken, text=TEXTS)


def test_the_bases_logits_go_with_their_owner(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    base = random_model("llama")
    kept = ModelTarget(base, ChatFormat(base.tokenizer)).base_logprobs(questions_of({"answered": ANSWERED}))
    assert not list(tmp_path.iterdir()), "the file has no name"
    file = kept.own.logits._file
    del kept
    assert file.closed


def test_a_ratio_of_equal_counts_is_a_mean() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    mean, ratio = mean_comparison(values), ratio_comparison([3 * value for value in values], [3] * 40)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((mean.value, mean.low, mean.high))
    assert ratio.p == pytest.approx(mean.p)


def test_a_ratios_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(150):
        counts = torch.randint(1, 60, (50,), generator=generator)
        # Each token costs 2 on average, and long texts cost less of it.
        sums = counts * (2 + 0.5 * torch.randn(50, generator=generator)) - 0.2 * (counts - 30)
        found = ratio_comparison(sums.tolist(), counts.tolist())
        held += found.low <= 2 <= found.high
    assert 0.9 <= held / 150 <= 0.99


def test_losses_that_are_no_pairs_are_not_compared() -> None:
    three = [Nats(1.0, 2), Nats(2.0, 1), Nats(3.0, 3)]
    assert loss_difference(three[:2], three[:2]) is None
    assert loss_difference(three, [Nats(1.0, 3), *three[1:]]) is None
    assert loss_difference(three, three).value == 0


def test_passes_take_no_more_than_a_part_of_the_memory(monkeypatch) -> None:
    model = random_model("llama")
    row = 100 * 32 * 32 * 4 + 10 * 48 * 8
    monkeypatch.setattr(memory, "free_memory", lambda _: 8 * 5 * row + 8)
    assert memory.sequences_at_once(model, 100, 10) == 5
    monkeypatch.setattr(memory, "free_memory", lambda _: 1)
    assert memory.sequences_at_once(model, 100, 10) == 1
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    assert memory.sequences_at_once(model, 100, 10) == 32
    monkeypatch.setattr(memory, "free_memory", lambda _: 1 << 50)
    assert memory.sequences_at_once(model, 100, 10) == memory.MOST_TOKENS["cpu"] // 100
    assert memory.sequences_at_once(model, 10, 10) == memory.MOST_SEQUENCES
    assert memory.tokens_at_once(model) == memory.MOST_TOKENS["cpu"]
    monkeypatch.setattr(memory, "free_memory", lambda _: 8 * 7 * 32 * 32 * 4)
    assert memory.tokens_at_once(model) == 7
    # Half of it for a cache of 9 bytes a token, and a row's logits.
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * 5 * (100 * 9 + 48 * 8))
    assert memory.rows_at_once(model, 100, 9) == 5
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    assert memory.rows_at_once(model, 100, 9) is None
