"""The judge of local guard models, on small ones made on the spot; the data files of published guards."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.helpers.small_guards import classifying_guard, speaking_guard
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation import guard_model
from weight_edit.evaluation.guard import Band, Guard, verdict_of, verdict_of_score
from weight_edit.evaluation.judges._data import filled, names_in, read_data
from weight_edit.evaluation.registry import JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict

REPLIES = [
    Reply(prompt="tell me how to make paint", text="I cannot tell how sorry"),
    Reply(prompt="how to cut bread", text="sure here is the way"),
    Reply(prompt=None, text="sorry"),
    Reply(prompt="how", text="<think>sorry</think>a red house"),
    Reply(prompt="how", text="<think> sorry", finished=False),
    Reply(prompt="how", text="..."),
]


def judged(replies: list[Reply] = REPLIES, **options):
    return JudgeSpec(kind="classifier", options=options)(replies)


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifying_guard(tmp_path_factory.mktemp("labels"), "sorry", {0: "NORMAL", 1: "REJECTION"})


def test_labels_of_a_classification_model(labelling: Path) -> None:
    found = judged(guard="rejection-distilroberta", model=str(labelling), batch_size=2)
    assert [one.verdict for one in found] == ["refused", "answered", "refused", "answered", "undecided", "empty"]
    assert [one.reason for one in found[:2]] == ["REJECTION", "NORMAL"]
    # Batches with padding find what single texts do.
    model = AutoModelForSequenceClassification.from_pretrained(labelling)
    tokenizer = AutoTokenizer.from_pretrained(labelling)
    for reply, one in zip(REPLIES[:3], found, strict=False):
        shares = model(**tokenizer(reply.text, return_tensors="pt")).logits.detach().softmax(-1)
        assert one.score == pytest.approx(float(shares.max()), abs=1e-6)
    assert judged(guard="rejection-distilroberta", model=str(labelling), batch_size=1) == found


def test_labels_that_are_verdicts_need_no_map(tmp_path: Path) -> None:
    folder = classifying_guard(tmp_path, "sorry", {0: "Answered", 1: "refused"})
    assert [one.verdict for one in judged(REPLIES[:2], model=str(folder))] == ["refused", "answered"]
    swapped = judged(REPLIES[:2], model=str(folder), verdicts={"Answered": "partial", "refused": "deflected"})
    assert [one.verdict for one in swapped] == ["deflected", "partial"]


def test_labels_that_stand_for_nothing_are_said_before_anything_is_judged(labelling: Path) -> None:
    with pytest.raises(
        UsageError, match=r"label 'NORMAL' of .* stands for no verdict; say which in the setting verdicts"
    ):
        judged(model=str(labelling))


ENDING = """
source: made for a test
kind: text
prompt: "tell me {request} here {answer}"
pattern: '(?P<label>sure|cannot)'
verdicts: {sure: answered, cannot: refused}
"""


@pytest.fixture
def guard_file(tmp_path: Path):
    def write(text: str, **changes) -> str:
        path = tmp_path / "guard.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(text), **changes}), encoding="utf-8")
        return str(path)

    return write


def test_a_guard_that_writes_its_label(tmp_path: Path, guard_file) -> None:
    folder = speaking_guard(tmp_path / "m", {"sorry": "cannot", "way": "sure", "house": "bread"})
    found = judged(guard=guard_file(ENDING), model=str(folder), batch_size=2)
    assert [one.verdict for one in found] == ["refused", "answered", "undecided", "undecided", "undecided", "empty"]
    assert found[2].reason == "the guard reads the request too, which is not recorded"
    assert found[3].reason == "unreadable: 'bread'"
    alone = guard_file(ENDING, prompt="{answer}")
    assert judged(REPLIES[2:3], guard=alone, model=str(folder))[0].verdict is Verdict.REFUSED


CHAT = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"


def test_a_guard_is_asked_by_its_own_chat_template(tmp_path: Path, guard_file) -> None:
    folder = speaking_guard(tmp_path / "m", {"sorry": "cannot", "way": "sure"}, CHAT)
    text = ENDING.replace('prompt: "tell me {request} here {answer}"\n', "")
    found = judged(REPLIES[:3], guard=guard_file(text), model=str(folder))
    assert [one.verdict for one in found] == ["refused", "answered", "undecided"]
    bare = speaking_guard(tmp_path / "bare", {"sorry": "cannot"}, "")
    with pytest.raises(UsageError, match="no chat template"):
        judged(REPLIES[:1], guard=guard_file(text), model=str(bare))


SCALE = """
source: made for a test
kind: scale
prompt: "here {answer}"
tokens: [red, blue, house]
"""


def test_a_guard_that_grades(tmp_path: Path, guard_file) -> None:
    folder = speaking_guard(tmp_path / "m", {"sorry": "red", "way": "house", "cars": "blue"})
    replies = [*REPLIES[:2], Reply(prompt="how", text="steal cars")]
    bands = [{"below": 0.45, "verdict": "refused"}, {"below": 0.55, "verdict": "partial"}]
    found = judged(replies, guard=guard_file(SCALE, bands=bands), model=str(folder))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for reply in replies:
        logits = model(**tokenizer(f"here {reply.text}", return_tensors="pt")).logits[0, -1].double()
        shares = logits[tokenizer.convert_tokens_to_ids(["red", "blue", "house"])].softmax(-1)
        expected.append(float(shares @ torch.tensor([0, 0.5, 1.0], dtype=torch.float64)))
    assert [one.reason for one in found] == [f"score {grade:.3f}" for grade in expected]
    assert expected[0] < 0.45 < expected[2] < 0.55 < expected[1]
    assert [one.verdict for one in found] == ["refused", "partial", "partial"]
    with pytest.raises(UsageError, match="no token 'green'"):
        judged(replies, guard=guard_file(SCALE, tokens=["red", "green"]), model=str(folder))
    with pytest.raises(UsageError, match="two grades"):
        judged(replies, guard=guard_file(SCALE, tokens=["red"]), model=str(folder))


def test_an_adapter_is_merged(tmp_path: Path, guard_file) -> None:
    base = speaking_guard(tmp_path / "base", {"sorry": "sure"})
    model = AutoModelForCausalLM.from_pretrained(base)
    joined = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=["lm_head"]))
    ids = word_tokenizer().convert_tokens_to_ids(["cannot", "sorry"])
    for name, parameter in joined.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()
            parameter.data[(ids[0], 0) if "lora_B" in name else (0, ids[1])] = 3.0
    joined.save_pretrained(tmp_path / "adapter")
    options = {"model": str(base), "adapter": str(tmp_path / "adapter")}
    assert judged(REPLIES[:1], guard=guard_file(ENDING, model=str(base)))[0].verdict is Verdict.ANSWERED
    assert judged(REPLIES[:1], guard=guard_file(ENDING, **options))[0].verdict is Verdict.REFUSED
    # A model of the user's own is complete.
    assert judged(REPLIES[:1], guard=guard_file(ENDING, **options), model=str(base))[0].verdict is Verdict.ANSWERED
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    with pytest.raises(UnsupportedError, match=r"no adapter_model\.safetensors"):
        judged(REPLIES[:1], guard=guard_file(ENDING, **options))


def test_a_model_without_a_head_is_refused(tmp_path: Path, guard_file) -> None:
    folder = speaking_guard(tmp_path / "m", {})
    with pytest.raises(UsageError, match="has no classification head"):
        judged(REPLIES[:1], model=str(folder))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name a guard (harmbench"),
        ({"guard": "wildgard"}, "did you mean 'wildguard'"),
        ({"guard": "none.yaml"}, "no such file"),
        ({"model": "/nowhere/at/all"}, "no folder"),
        ({"model": "m", "device": "abacus"}, "abacus"),
        ({"model": "m", "dtype": "bf16"}, "bf16"),
        ({"model": "m", "batch_size": 0}, "batch_size"),
        ({"model": "m", "verdicts": {"a": "b"}}, "verdicts"),
    ],
)
def test_wrong_options_are_one_line(options: dict, words: str) -> None:
    with pytest.raises(UsageError) as failed:
        judged(REPLIES[:1], **options)
    assert words in str(failed.value)
    assert "\n" not in str(failed.value)


def test_special_tokens_in_an_answer_stay_text(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    guard = Guard(source="test", kind="text", prompt="<user> {request} <assistant> {answer}")
    reply = Reply(prompt="how <end>", text="sure <assistant> <end> {request}")
    (ids,) = guard_model._sequences(guard, [reply], tokenizer)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [number for number in ids if number in special] == tokenizer.convert_tokens_to_ids(["<user>", "<assistant>"])
    assert filled("{a} {b} {c}", {"a": "{b}", "b": "x"}) == "{b} x {c}"


@pytest.mark.parametrize(("keep", "part"), [("begin", "sure here"), ("end", "the way")])
def test_a_part_of_a_long_answer_is_read(keep: str, part: str) -> None:
    guard = Guard(source="test", kind="text", prompt="{answer}", answer_tokens=2, keep=keep)
    (ids,) = guard_model._sequences(guard, [Reply(prompt="a", text="sure here is the way")], word_tokenizer())
    assert word_tokenizer().decode(ids) == part


PROMPTS = {
    "harmbench-llama-2-13b": "1245bba8a2f4fa1e5a83d72aa4ddc68c884a6a7bda1982eac3bf20f87aa2663f",
    "strongreject-gemma-2b": "8398e21da9c1e7b6394ebb6400686030a7ab2a60d590b242988c6ce274eaf59e",
    "wildguard": "a6f7bf0de2bbf683a7efbd248308fbd9b580436f315a986023cd3b51f346e085",
}
"""Guard -> SHA-256 of its prompt: guards were trained on it, to the last space."""


def test_published_guards_are_as_published() -> None:
    guards = {name: read_data("guards", name, Guard, "guard") for name in names_in("guards")}
    assert len(guards) >= 5
    for name, guard in guards.items():
        assert guard.source.startswith("https://"), name
        assert guard.licence, name
        assert guard.model, name
        re.compile(guard.pattern)
    prompts = {name: guard.prompt for name, guard in guards.items() if guard.prompt}
    assert {name: hashlib.sha256(text.encode()).hexdigest() for name, text in prompts.items()} == PROMPTS


def test_what_published_guards_write_is_read() -> None:
    wildguard = read_data("guards", "wildguard", Guard, "guard")
    for refusal, verdict in (("yes", "refused"), ("no", "answered"), ("N/A", "undecided")):
        said = f"Harmful request: yes\nResponse refusal: {refusal}\nHarmful response: no"
        label = wildguard.label_in(said)
        assert label is not None
        assert verdict_of(wildguard, label) == verdict
    assert wildguard.label_in("Harmful request: yes") is None
    llama = read_data("guards", "llama-guard-3", Guard, "guard")
    assert [llama.label_in(said) for said in ("\n\nsafe", "unsafe\nS2", "unsafely", "it is safe")] == [
        "safe",
        "unsafe",
        None,
        None,
    ]
    assert llama.needs_request
    harmbench = read_data("guards", "harmbench-llama-2-13b", Guard, "guard")
    assert [harmbench.label_in(said) for said in (" Yes", "no", "not")] == ["yes", "no", None]
    assert not read_data("guards", "rejection-distilroberta", Guard, "guard").needs_request
    strongreject = read_data("guards", "strongreject-gemma-2b", Guard, "guard")
    assert (strongreject.prompt or "").endswith("### Answer: ")
    assert [verdict_of_score(strongreject, score) for score in (0, 0.3, 0.8, 1)] == [
        "refused",
        "partial",
        "answered",
        "answered",
    ]


def test_a_wrong_pattern_is_one_line() -> None:
    for pattern in ("(", "sure"):
        with pytest.raises(UsageError, match="no group 'label' or is wrong"):
            Guard(source="test", kind="text", pattern=pattern, verdicts={"sure": "answered"}).label_in("sure")
    assert (
        verdict_of_score(Guard(source="t", kind="scale", bands=[Band(below=0.1, verdict="refused")]), 0.9) == "refused"
    )
