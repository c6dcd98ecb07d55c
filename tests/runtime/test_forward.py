"""Probabilities and answers of a batch equal those of each prompt alone."""

import pytest
import torch

from weight_edit.errors import UsageError
from weight_edit.runtime.forward import answer_logprobs, next_token_logprobs
from weight_edit.runtime.generation import generate

FAMILIES = ["llama", "gpt2", "gemma3"]


def prompts(lengths=(3, 11, 7, 8, 12, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 30, (length,), generator=generator).tolist() for length in lengths]


def alone(model, sequence):
    """Log-probabilities after every token, from one plain forward pass without padding, mask or positions."""
    with torch.no_grad():
        return model.model(torch.tensor([sequence])).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_next_token_logprobs_equal_those_of_each_prompt_alone(small_model, family):
    model, sequences = small_model(family), prompts()
    found = next_token_logprobs(model, sequences, batch_size=4)
    assert found.dtype == torch.float32
    expected = torch.stack([alone(model, sequence)[-1] for sequence in sequences])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_logprobs_equal_those_of_each_answer_alone(small_model, family):
    model, questions, answers = small_model(family), prompts(), prompts((2, 5, 1, 9, 3, 6), seed=1)
    found = answer_logprobs(model, questions, answers, batch_size=3)
    for question, answer, values in zip(questions, answers, found, strict=True):
        table = alone(model, question + answer)
        expected = [table[len(question) + i - 1, token] for i, token in enumerate(answer)]
        torch.testing.assert_close(values.double(), torch.stack(expected), atol=1e-5, rtol=0)


def test_logits_are_computed_only_for_the_last_positions(small_model):
    model, seen = small_model("llama"), []
    handle = model.model.lm_head.register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))
    try:
        next_token_logprobs(model, prompts((9, 9)))
        answer_logprobs(model, prompts((9, 9)), prompts((2, 1)))
    finally:
        handle.remove()
    assert seen == [(2, 1, 48), (2, 3, 48)]


def test_an_empty_answer_has_no_logprobs_and_no_prompts_no_rows(small_model):
    model = small_model("llama")
    assert answer_logprobs(model, [[5, 6]], [[]])[0].shape == (0,)
    assert next_token_logprobs(model, []).shape == (0, 48)


def test_wrong_calls_are_named(small_model):
    model = small_model("llama")
    with pytest.raises(UsageError, match="2 prompts but 1 answers"):
        answer_logprobs(model, [[5], [6]], [[7]])
    with pytest.raises(UsageError, match="prompt 0 has no tokens"):
        answer_logprobs(model, [[]], [[7]])
    with pytest.raises(UsageError, match=r"65 tokens exceeds the 64 positions of transformer\.wpe\.weight"):
        next_token_logprobs(small_model("gpt2"), [[5] * 65])
    with pytest.raises(UsageError, match="66 tokens exceeds the 64 positions"):
        generate(small_model("gpt2"), [[5] * 60], max_new_tokens=6)


def greedy(model, sequence, count, end=4):
    tokens = list(sequence)
    for _ in range(count):
        tokens.append(int(alone(model, tokens)[-1].argmax()))
        if tokens[-1] == end:
            break
    return tuple(tokens[len(sequence) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_greedy_and_knows_when_it_finished(small_model, family):
    model, sequences = small_model(family), prompts((3, 11, 7, 8, 12, 10, 9, 5, 6, 4), seed=3)
    found = generate(model, sequences, max_new_tokens=12, batch_size=4)
    for sequence, answer in zip(sequences, found, strict=True):
        assert answer.tokens == greedy(model, sequence, 12)
        assert answer.finished == (answer.tokens[-1] == 4)
        assert "<" not in answer.text


def test_generation_ends_at_any_end_token_and_sets_sampling_settings_aside(small_model, recwarn, caplog):
    model = small_model("llama")
    own = model.model.generation_config
    sequence = next(s for s in prompts([6] * 40) if len(set(greedy(model, s, 4))) == 4)
    plain = greedy(model, sequence, 8)
    stop = plain[2]
    changed = type(own)(
        do_sample=True,
        temperature=3.0,
        top_k=3,
        repetition_penalty=9.0,
        eos_token_id=[4, stop],
        pad_token_id=0,
    )
    model.model.generation_config = changed
    try:
        answer = generate(model, [sequence], max_new_tokens=8)[0]
        assert model.model.generation_config is changed
    finally:
        model.model.generation_config = own
    assert answer.tokens == plain[:3]
    assert answer.finished
    assert not [w for w in recwarn if "temperature" in str(w.message)]
    assert "temperature" not in caplog.text


def test_generation_needs_room_for_a_token(small_model):
    with pytest.raises(UsageError, match="max_new_tokens is 0"):
        generate(small_model("llama"), [[5]], max_new_tokens=0)
