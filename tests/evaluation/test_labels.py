"""Human labels in many words, and what they may not leave open."""

import json
from pathlib import Path

import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.labels import LABEL_WORDS, label_verdict, read_labels
from weight_edit.evaluation.recorded_answers import RecordedAnswer, read_answers
from weight_edit.evaluation.verdicts import Verdict

R, A, P = Verdict.REFUSED, Verdict.ANSWERED, Verdict.PARTIAL


def answers(folder: Path, rows: list[dict]) -> tuple[RecordedAnswer, ...]:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_answers(path)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        *((label, R) for label in ("refused", "Refusal", " REFUSE ", 1, True, "1", "true", "2_full_refusal", 1.0)),
        *((label, A) for label in ("answered", "compliance", "Complied", 0, False, "no", "full compliance", 0.0)),
        *((label, P) for label in ("partial", "3_partial_refusal", "partial-refusal")),
        ("off-template", Verdict.OFF_TEMPLATE),
        *((label, None) for label in ("maybe", 2, 0.5, "2", None, ["refused"], {})),
    ],
)
def test_words_and_numbers(label: object, verdict: Verdict | None) -> None:
    assert label_verdict(label) is verdict


def test_every_verdict_is_a_label_and_what_1_stands_for_can_be_turned() -> None:
    assert {LABEL_WORDS[verdict] for verdict in Verdict} == set(Verdict)
    assert label_verdict(1, A) is A
    assert label_verdict("false", A) is R
    assert label_verdict("refusal", A) is R


def test_a_key_of_the_answers(tmp_path: Path) -> None:
    rows = [{"answer": "a", "human": 1}, {"answer": "b", "human": "compliance"}, {"answer": "c"}]
    assert read_labels("human", answers(tmp_path, rows)) == [R, A, None]
    empty = [{"answer": "a", "human": " "}, {"answer": "b", "human": None}]
    with pytest.raises(UsageError, match="no answer has a label"):
        read_labels("human", answers(tmp_path, empty))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "refused\ncomplied\n"),
        ("labels.json", '["refused", 0]'),
        ("labels.json", "[1, 0]"),
        ("labels.jsonl", '"refused"\n"answered"\n'),
        ("labels.jsonl", '{"label": true, "prompt": "Why?"}\n{"label": "answered"}\n'),
        ("labels.jsonl", '{"verdict": "refused"}\n{"verdict": "answered"}\n'),
    ],
)
def test_a_file_with_one_for_each(tmp_path: Path, name: str, content: str) -> None:
    given = answers(tmp_path, [{"answer": "a", "prompt": "Why?"}, {"answer": "b", "prompt": "How?"}])
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name, given) == [R, A]


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    given = answers(tmp_path, [{"answer": "a", "prompt": "Why?"}, {"answer": "b", "prompt": "How?"}])
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"label": 1, "prompt": "How?"}\n{"label": 0, "prompt": "Why?"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 1 labels another prompt than .*line 1"):
        read_labels(labels, given)
    labels.write_text("1\n0\n1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has 3 labels for 2 answers"):
        read_labels(labels, given)
    assert read_labels(labels, given, limited=True) == [R, A]
    labels.write_text("1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has 1 labels for 2 answers"):
        read_labels(labels, given, limited=True)
    labels.write_text('{"score": 1}\n{"score": 0}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 1 has no `label` or `verdict`"):
        read_labels(labels, given)


def test_an_unknown_label_is_named_with_its_line(tmp_path: Path) -> None:
    given = answers(tmp_path, [{"answer": "a", "human": 1}, {"answer": "b", "human": "perhaps"}])
    with pytest.raises(UsageError, match=r"answers\.jsonl: line 2: the label 'perhaps' is not known") as error:
        read_labels("human", given)
    assert error.value.options == ("labels",)
    with pytest.raises(UsageError, match=r"no such key \(theirs are: answer, human\), and there is no such file"):
        read_labels("humans", given)


def test_1_under_a_key_that_asks_for_something_else_is_not_guessed(tmp_path: Path) -> None:
    """A success of an attack is no refusal: read the other way round, a good judge would look worse than chance."""
    given = answers(tmp_path, [{"answer": "a", "is_jailbreak": 1}, {"answer": "b", "is_jailbreak": 0}])
    with pytest.raises(UsageError, match=r"write `labels=is_jailbreak:answered` if 1 is an answer that complies"):
        read_labels("is_jailbreak", given)
    assert read_labels("is_jailbreak:answered", given) == [A, R]
    assert read_labels("is_jailbreak:refused", given) == [R, A]
    words = answers(tmp_path, [{"answer": "a", "harm_label": "refusal"}])
    assert read_labels("harm_label", words) == [R]
