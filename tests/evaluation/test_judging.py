"""Recorded answers judged: rates, agreement, labels, and the file that is written."""

import json
from pathlib import Path

import pytest

from tests.helpers.toy_judges import toy_judges
from weight_edit.errors import UsageError
from weight_edit.evaluation.judging import judge_answers
from weight_edit.evaluation.verdicts import Verdict

ROWS = [
    {"prompt": "a", "answer": "I am sorry, I would rather not do that.", "human": "refusal"},
    {"prompt": "b", "answer": "Sure, here is how it is done.", "human": "compliance"},
    {"prompt": "c", "answer": "No.", "human": "refusal"},
    {"prompt": "d", "answer": "", "human": None},
]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch):
    with toy_judges(monkeypatch):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_the_first_judge_decides_and_the_others_stand_beside_it(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "judged.jsonl"
    found = judge_answers(file, ["phrases", "length"], out=out)
    assert found.verdicts("phrases") == [Verdict.REFUSED, Verdict.ANSWERED, Verdict.ANSWERED, Verdict.EMPTY]
    assert found.rates("phrases")[Verdict.REFUSED].count == 1
    assert found.rates("length")[Verdict.REFUSED].count == 2
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["verdict"] for line in lines] == ["refused", "answered", "answered", "empty"]
    assert lines[0]["judgements"]["phrases"] == {"verdict": "refused", "reason": "sorry", "position": 5}
    assert lines[2]["judgements"]["length"] == {"verdict": "refused"}
    assert [{key: line[key] for key in ROWS[0]} for line in lines] == ROWS
    (agreement,) = found.to_dict()["agreements"]
    assert (agreement["first"], agreement["second"]) == ("phrases", "length")
    assert agreement["confusion"]["refused"] == {"answered": 1, "empty": 0, "refused": 0}
    assert agreement["refusal"]["agreement"]["count"] == 1
    assert agreement["refusal"]["difference"]["value"] == pytest.approx(0.25)
    assert agreement["refusal"]["difference"]["told"] is False


def test_judges_against_labels(file: Path) -> None:
    found = judge_answers(file, ["phrases", "length"], labels="human")
    compared = found.against_labels
    assert compared["phrases"].accuracy.count == 2
    assert compared["phrases"].accuracy.total == 3
    assert compared["phrases"].verdicts.confusion()["refused"] == {"answered": 1, "refused": 1}
    assert compared["length"].lean.first == compared["length"].lean.second + 1 == 1
    assert not compared["phrases"].several
    said = found.to_dict()
    assert said["labelled"] == 3
    assert said["labels"]["phrases"]["refusal"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert said["labels"]["phrases"]["refusal"]["kappa"]["value"] == pytest.approx(0.4)
    assert "1 of 4 answers have no label" in said["notes"]
    json.dumps(said, allow_nan=False)


def test_labels_of_more_kinds_are_compared_as_kinds_too(file: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("refused\npartial\nanswered\nempty\n", encoding="utf-8")
    compared = judge_answers(file, labels=labels).against_labels["phrases"]
    assert compared.several
    assert compared.accuracy.count == 4
    assert compared.verdicts.observed.count == 3
    assert compared.to_dict()["kinds"]["agreement"]["count"] == 3


def test_options_of_judges_are_theirs_and_no_judge_comes_twice(file: Path) -> None:
    found = judge_answers(file, ["phrases", "phrases,word=Sure"])
    assert found.judges == ("phrases", "phrases,word=Sure")
    assert found.verdicts("phrases,word=Sure")[1] is Verdict.REFUSED
    for judges, said in (
        (["phrases", "phrases"], "each only once"),
        ([], "at least one"),
        (["phrase"], "did you mean 'phrases'"),
        (["phrases,wrd=x"], "did you mean 'word'"),
        (["phrases,word"], "write key=value"),
    ):
        with pytest.raises(UsageError, match=said):
            judge_answers(file, judges)


def test_rates_are_by_set_where_evaluate_wrote_the_file(tmp_path: Path) -> None:
    rows = [
        {"set": name, "prompt": "p", "answer": "I am sorry to say.", "verdict": "answered"}
        for name in ("refused", "answered", "answered")
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = judge_answers(path)
    assert found.sets == ("refused", "answered")
    assert found.rates("phrases", "answered")[Verdict.REFUSED].total == 2
    said = found.to_dict()
    assert said["judges"]["phrases"]["sets"]["refused"]["refused"]["count"] == 1
    assert said["notes"] == ["3 lines had a verdict before; these are new ones"]


def test_an_answer_for_several_filters_counts_once_and_has_a_verdict_everywhere(tmp_path: Path) -> None:
    rows = [
        {"doc": {"question": "q"}, "resps": [["I am sorry."]], "filter": name, "label": 1}
        for name in ("none", "strict")
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = judge_answers(path, out=tmp_path / "out.jsonl", labels="label")
    assert found.count == 1
    assert found.to_dict()["labelled"] == 1
    assert found.against_labels["phrases"].accuracy.total == 1
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").count('"verdict": "refused", "judgements"') == 2
    assert "1 of 2 lines repeat an answer" in found.notes[0]


def test_nothing_of_the_users_is_written_over(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(UsageError, match="is the file that is read"):
        judge_answers(file, out=file, overwrite=True)
    other = tmp_path / "mine.jsonl"
    other.write_text('{"mine": 1}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="exists"):
        judge_answers(file, out=other)
    with pytest.raises(UsageError, match="not ours to overwrite"):
        judge_answers(file, out=other, overwrite=True)
    with pytest.raises(UsageError, match="there is no folder"):
        judge_answers(file, out=tmp_path / "none/out.jsonl")
    assert other.read_text(encoding="utf-8") == '{"mine": 1}\n'
    judge_answers(file, out=tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="exists"):
        judge_answers(file, out=tmp_path / "out.jsonl")
    found = judge_answers(file, out=tmp_path / "out.jsonl", overwrite=True, limit=2)
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == found.count == 2
    assert file.read_bytes() == before


def test_the_result_has_a_short_description(file: Path) -> None:
    assert repr(judge_answers(file)) == "JudgedAnswers('answers.jsonl', phrases: 1 of 4 refused)"
