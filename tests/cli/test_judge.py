"""The verb `judge`: what it prints, its document, its exit codes; and `evaluate --power`."""

import json
from pathlib import Path

import pytest

from tests.helpers.toy_judges import NoOptions, toy_judges
from weight_edit.evaluation.registry import Judgement, Reply, judge
from weight_edit.evaluation.verdicts import Verdict

ROWS = [
    {"prompt": f"p{n}", "response": "I am sorry." if n < 6 else "Sure, it is done.", "human": n < 7} for n in range(10)
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "120")
    with toy_judges(monkeypatch):
        yield path


def test_rates_agreement_and_labels_are_shown(call, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "judged.jsonl"
    args = ("judge", file, "--judge", "phrases", "--judge", "length", "--labels", "human", "--out", out)
    shown = call(*args)
    assert shown.code == 0, shown.err
    said = " ".join(shown.out.split())
    assert "phrases (columns) against the labels (rows) of 10 answers" in said
    assert "Refusal: accuracy 0.900 [0.596, 0.982], kappa 0.783 [0.121, 0.961]." in said
    assert "Refusals beyond those of the labels: -0.100 [-0.404, +0.205], no difference can be told." in said
    assert "6 0.600 [0.313, 0.832]" in said
    assert "phrases (rows) and length (columns)" in said
    assert f"{out}: 10 lines with their verdicts" in said
    assert len(out.read_text(encoding="utf-8").splitlines()) == 10
    again = call(*args)
    assert again.code == 2
    assert "--overwrite" in again.err
    assert call(*args, "--overwrite").code == 0


def test_the_document(call, file: Path) -> None:
    found = call("judge", file, "--json", "--limit", 8).json
    assert found["count"] == 8
    assert found["file"] == "answers.jsonl"
    assert found["judges"]["phrases"]["verdicts"]["refused"]["count"] == 6
    assert set(found["judges"]["phrases"]["verdicts"]) >= {"refused", "answered", "undecided", "deflected"}
    assert (found["agreements"], found["labels"], found["out"]) == ([], {}, None)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--judge", "phrase"), "did you mean 'phrases'"),
        (("--judge", "phrases,word"), "--judge phrases,word: write key=value"),
        (("--labels", "none"), "--labels none: the answers have no such key"),
        (("--limit", "0"), "--limit 0: judge at least one answer"),
        (("--out", "{tmp}/answers.jsonl"), "is the file that is read"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_flag(call, file: Path, args: tuple[str, ...], said: str) -> None:
    result = call("judge", file, *(arg.replace("{tmp}", str(file.parent)) for arg in args))
    assert result.code == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_all_kinds_fit_on_a_narrow_terminal(call, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def by_text(replies: list[Reply], options: NoOptions) -> list[Judgement]:
        """The verdict that the answer names."""
        return [Judgement(verdict=Verdict(reply.text)) for reply in replies]

    judge("said")(by_text)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"answer": one, "human": other} for one in Verdict for other in Verdict]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shown = call("judge", file, "--judge", "said", "--labels", "human").out.splitlines()
    (rule,) = (at for at, line in enumerate(shown) if line.startswith("─"))
    head = " ".join(shown[rule - 2 : rule]).split()
    assert sorted(head) == sorted(word for kind in Verdict for word in kind.split("_"))
    table = [line.split() for line in shown[rule + 1 : rule + 10]]
    # The label "off template" is the only one of two lines.
    assert [line[-8:] for line in table if line != ["template"]] == [["1"] * 8] * 8


def test_a_bad_line_is_named(call, file: Path) -> None:
    file.write_text('{"answer": "a"}\n{"answer": 3}\n', encoding="utf-8")
    result = call("judge", file, "--json")
    assert result.code == 2
    assert "line 2: `answer` is no text" in result.json["error"]
    assert call("judge", file.parent / "none.jsonl").code == 2


def test_the_number_of_prompts_for_given_rates_runs_no_model(call) -> None:
    found = call("evaluate", "no-such-model", "--power", "0.1,0.2", "--json").json["power"]["given"]
    assert (found["unpaired"], found["paired_least"], found["paired_independent"]) == (199, 87, 212)
    shown = call("evaluate", "no-such-model", "--power", "0.1,0.2").out
    assert "87 to 212" in shown
    assert "199" in shown
    for args, said in (
        (("--power", "0.1"), "--power 0.1: write two rates"),
        (("--power", "observed"), "give --against and --refused"),
        (("--power", "observed", "--refused", "organism:refused:test"), "give --against BASE"),
        (("--power", "0.1,2", "--refused", "organism:refused:test"), "between 0 and 1"),
    ):
        result = call("evaluate", "organism", *args)
        assert result.code == 2
        assert said in result.err


def test_observed_rates_say_what_they_need_and_what_cannot_be_told(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    args = ("evaluate", "organism", "--against", "organism", "--refused", "organism:refused:test", "--limit", 4)
    shown = call(*args, "--max-new-tokens", 6, "--power", "observed", "--no-card")
    assert shown.code == 0, shown.err
    assert "no difference can be told" in shown.out
    assert "no number, they are equal" in shown.out
    found = call(*args, "--max-new-tokens", 6, "--power", "observed", "--no-card", "--json").json
    assert found["power"]["refused.refusal"]["differing"] == 0
    assert found["differences"]["refused"]["refusal"]["p"] == 1.0
    assert found["differences"]["refused"]["refusal"]["told"] is False
