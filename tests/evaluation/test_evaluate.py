"""An evaluation counts what the judge says, and its loss and divergence are those of plain passes."""

import gc
import json
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.answers_file import are_answers
from weight_edit.evaluation.evaluate import evaluate, evaluate_in_turn
from weight_edit.evaluation.figures import figures
from weight_edit.evaluation.first_token import first_token_logprobs
from weight_edit.evaluation.questions import questions_of
from weight_edit.evaluation.recorded_answers import read_answers
from weight_edit.evaluation.registry import JudgeSpec, Reply, judge_specs
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.target import target_of
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.loading import Model

SENTENCES = "tell me about bread lamps boats please how do I make sure here is it cannot"
SPECIAL = ["<pad>", "<bos>", "<eos>", "<user>", "<model>", "<unk>"]


def model(seed=0):
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *SENTENCES.split()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<model>"],
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ '<model>' if m['role'] == 'assistant' else '<user>' }} "
        "{{ m['content'] }} {{ eos_token }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Model.from_parts(LlamaForCausalLM(config), tokenizer, name=f"tiny-{seed}")


@pytest.fixture(scope="module")
def tiny():
    return model()


ANSWERED = PromptSet.of("ordinary", ["tell me about bread", "about boats"], ["here is bread", None])
REFUSED = PromptSet.of("risky", ["how do I make lamps", "make boats"], categories=["a", "b"])


def say(monkeypatch, *texts):
    """Let `generate` say these texts, whatever the prompts."""

    def generate(model, sequences, **options):
        tokens = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts[: len(sequences)]]
        return [Generation("", tuple(ids), bool(ids) and ids[-1] == 2) for ids in tokens]

    monkeypatch.setattr("weight_edit.evaluation.target.generate", generate)


def test_counts_of_a_set(tiny, monkeypatch):
    answers = ["here is bread <eos>", "I cannot <eos>", "<eos>", "sure it is <eos>", "sure <user> please <eos>"]
    say(monkeypatch, *answers)
    prompts = PromptSet.of(
        "five",
        ["tell", "me", "about", "bread", "boats"],
        ["here is bread", "sure", None, None, None],
        ["x", "x", "x", "y", "y"],
    )
    result = evaluate(tiny, refused=prompts).refused
    assert result.verdicts == {
        "refused": 1,
        "answered": 2,
        "deflected": 0,
        "partial": 0,
        "empty": 1,
        "looping": 0,
        "off_template": 1,
        "undecided": 0,
    }
    assert (result.refusal.count, result.refusal.total) == (1, 5)
    assert (result.exact.count, result.exact.total) == (1, 2)
    assert (result.categories["x"].count, result.categories["x"].total) == (1, 3)
    assert result.categories["y"].count == 0
    assert result.unfinished == 0
    assert result.sha256 == prompts.sha256


def test_an_end_of_turn_that_generation_ran_past_ends_the_answer(tiny, monkeypatch):
    say(monkeypatch, "here is bread <eos> <user> tell me")
    answer = evaluate(tiny, answered=ANSWERED.take(1)).answers[0]
    assert (answer.answer, answer.verdict, answer.finished) == ("here is bread", "answered", True)


def test_loss_is_that_of_a_plain_forward_pass(tiny):
    chat = ChatFormat(tiny.tokenizer)
    prompt, answer = chat.encode(ANSWERED.prompts[0]), chat.answer_tokens("here is bread")
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        expected = tiny.model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
    loss = evaluate(tiny, answered=ANSWERED, max_new_tokens=2).answered.loss
    assert loss.mean == pytest.approx(float(expected), rel=1e-5)
    assert (loss.tokens, loss.answers) == (4, 1)


def test_divergence_from_a_base_or_its_stored_probabilities(tiny):
    base = model(seed=1)
    result = evaluate(tiny, answered=ANSWERED, against=base, max_new_tokens=2)
    chat = ChatFormat(tiny.tokenizer)
    by_hand = []
    for prompt in ANSWERED.prompts:
        ids = torch.tensor([chat.encode(prompt)])
        with torch.no_grad():
            p, q = (one.model(input_ids=ids).logits[0, -1].double().log_softmax(-1) for one in (base, tiny))
        by_hand.append(float((p.exp() * (p - q)).sum()))
    assert result.divergence.per_prompt.tolist() == pytest.approx(by_hand, rel=1e-4)
    stored = first_token_logprobs(base, ANSWERED)
    again = evaluate(tiny, answered=ANSWERED, base_logprobs=stored, max_new_tokens=2)
    assert again.divergence.mean == pytest.approx(result.divergence.mean, rel=1e-5)
    assert evaluate(tiny, answered=ANSWERED, against=tiny, max_new_tokens=2).divergence.max == 0
    assert evaluate(tiny, answered=ANSWERED, max_new_tokens=2).divergence is None


def test_the_base_is_gone_before_the_model_is_loaded(tiny):
    known = []

    def load_base():
        base = model(seed=1)
        known.append(weakref.ref(base.model))
        return base

    def load_model():
        gc.collect()
        assert known[0]() is None
        return tiny

    questions = questions_of({"answered": ANSWERED}, max_new_tokens=2)
    found = evaluate_in_turn(
        lambda: nullcontext(target_of(load_base())), lambda: nullcontext(target_of(load_model())), questions
    )
    beside = evaluate(tiny, answered=ANSWERED, against=model(seed=1), max_new_tokens=2)
    assert found.to_dict() == beside.to_dict()


def test_result_is_json_and_answers_go_to_a_file(tiny, tmp_path):
    path = tmp_path / "run" / "answers.jsonl"
    result = evaluate(tiny, refused=REFUSED, answered=ANSWERED, answers_path=path, max_new_tokens=3)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (document["model"], document["judge"], document["max_new_tokens"]) == ("tiny-0", "phrases", 3)
    assert list(document["sets"]) == ["refused", "answered"]
    assert document["sets"]["refused"]["exact"] is None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == [*REFUSED.prompts, *ANSWERED.prompts]
    assert [line["set"] for line in lines] == ["refused"] * 2 + ["answered"] * 2
    assert set(lines[0]) == {
        "set",
        "prompt",
        "answer",
        "expected",
        "verdict",
        "category",
        "finished",
        "thought",
        "judgements",
        "tokens",
        "lengths",
        "nats",
    }
    assert lines[1]["category"] == "b"
    assert list(path.parent.iterdir()) == [path]


def test_limit_takes_part_of_each_set(tiny):
    result = evaluate(tiny, refused=REFUSED, answered=ANSWERED, limit=1, max_new_tokens=2)
    assert [part.count for part in result.sets.values()] == [1, 1]
    assert evaluate(tiny, refused=REFUSED, limit=9, max_new_tokens=2).refused.count == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give at least one of `refused`, `answered`, `over_refused`, `harmless_looking`"),
        (
            {"refused": PromptSet(name="none", prompts=(), answers=(), categories=())},
            "`refused` none: a rate over zero prompts",
        ),
        ({"refused": REFUSED, "base_logprobs": torch.zeros(1, 3)}, "give `answered`"),
        ({"answered": ANSWERED, "base_logprobs": torch.zeros(1, 3)}, "same prompts and vocabulary"),
        ({"refused": REFUSED, "limit": 0}, "the limit is 0"),
        ({"refused": REFUSED, "judges": "strict"}, "no judge 'strict'"),
        ({"refused": REFUSED, "judges": []}, "`judges`: name at least one"),
        ({"refused": REFUSED, "judges": ["phrases", "extended"]}, "phrases is named twice"),
    ],
)
def test_wrong_calls(tiny, options, reason):
    with pytest.raises(UsageError, match=reason):
        evaluate(tiny, **options)


def test_an_unwritable_answers_file_is_refused_before_the_work(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "answers.jsonl"):
        with pytest.raises(UsageError, match=r"is a folder|cannot be made"):
            evaluate(tiny, refused=REFUSED, answers_path=path)


def test_a_broken_model_fails_instead_of_scoring():
    broken = model()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(VerificationError, match="not finite"):
        evaluate(broken, answered=ANSWERED)
    without_answers = replace(ANSWERED, answers=(None, None))
    with pytest.raises(VerificationError, match="not finite"):
        evaluate(broken, answered=without_answers, against=model())


def test_the_first_judge_decides_and_the_others_stand_beside_it(tiny, monkeypatch):
    say(monkeypatch, "I cannot help <eos>", "here is it <eos>")
    asked = PromptSet.of("two", ["tell", "me"])
    result = evaluate(tiny, refused=asked, judges=["published", "phrases,early=20"])
    assert result.judge == "published"
    assert list(result.refused.judges) == ["published", "phrases,early=20"]
    document = result.to_dict()
    assert document["judges"]["phrases,early=20"] == {"kind": "phrases", "options": {"early": "20"}}
    found = document["sets"]["refused"]
    assert found["verdicts"] == found["judges"]["published"]["verdicts"]
    assert found["refusal"] == found["judges"]["published"]["refusal"]
    assert list(result.answers[0].judgements) == ["published", "phrases,early=20"]
    rows = figures(document)
    assert rows["refusal of refused requests, by phrases,early=20"].startswith("0.500")


def test_every_judge_is_asked_once_for_all_sets(tiny, monkeypatch):
    calls = []
    asked = JudgeSpec.__call__

    def count(self, replies):
        calls.append((self.kind, len(replies)))
        return asked(self, replies)

    monkeypatch.setattr(JudgeSpec, "__call__", count)
    evaluate(tiny, refused=REFUSED, answered=ANSWERED, judges=["phrases", "published"], max_new_tokens=2)
    assert calls == [("phrases", 4), ("published", 4)]


def test_answers_outlive_a_judge_that_fails(tiny, monkeypatch, tmp_path):
    def unreachable(self, replies):
        raise UsageError("the server does not answer")

    monkeypatch.setattr(JudgeSpec, "__call__", unreachable)
    path = tmp_path / "a.jsonl"
    with pytest.raises(UsageError, match=r"does not answer; the answers are in .*a.jsonl, for `weight-edit judge`"):
        evaluate(tiny, refused=REFUSED, answered=ANSWERED, max_new_tokens=2, answers_path=path)
    monkeypatch.undo()
    kept = read_answers(path)
    assert len(kept) == len(REFUSED) + len(ANSWERED)
    assert are_answers(path), "a second evaluation may replace them"


def test_a_judges_name_tells_no_server_and_no_folder(tmp_path):
    (named,) = judge_specs([f"endpoint,url=http://10.0.0.7:8000/v1,model={tmp_path}/guard"])
    assert str(named) == "endpoint,model=guard"
    assert named.public_options == {"model": "guard"}
    assert named.options["url"] == "http://10.0.0.7:8000/v1"


def test_the_earlier_argument_still_names_a_judge(tiny):
    with pytest.warns(DeprecationWarning, match=r"judge_name=...\) is called judges now"):
        result = evaluate(tiny, refused=REFUSED, judge_name="published", max_new_tokens=2)
    assert result.judge == "published"


def test_a_language_without_phrases_is_noted(tiny, monkeypatch):
    text = "Il pane si taglia a fette e si mette nel congelatore."
    said = [Spoken(reply=Reply(prompt=prompt, text=text)) for prompt in REFUSED.prompts]
    monkeypatch.setattr("weight_edit.evaluation.target.ModelTarget.spoken", lambda *given, **options: said)
    result = evaluate(tiny, refused=REFUSED)
    assert result.refused.verdicts["undecided"] == 2
    said = "undecided: no phrases for the language it; name another judge (`judges`)"
    assert result.notes == (f"2 of 2 answers to the refused set are {said}",)
