"""Verdicts at several lengths are those that each limit of its own would have given, from one generation."""

import io
import json

import pytest
from rich.console import Console

from tests.helpers.chat_server import ChatServer
from tests.helpers.toy_judges import toy_judges
from weight_edit.baking.card.results import model_index, table_rows
from weight_edit.cli.tables.lengths import by_length
from weight_edit.cli.tables.style import style
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import load_answers
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.lengths import answer_lengths, longest
from weight_edit.evaluation.paired_answers import paired_document
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.runtime.loading import load

LENGTHS = (2, 4, 8, 40)


@pytest.fixture(scope="module")
def organism():
    return load("organism")


@pytest.fixture(scope="module")
def sets():
    return {name: load_prompts(f"organism:{name}:test").at_most(8) for name in ("refused", "answered")}


@pytest.fixture(scope="module")
def swept(organism, sets):
    return evaluate(organism, **sets, lengths=LENGTHS)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_is_a_limit_of_its_own(organism, sets, swept, length):
    alone = evaluate(organism, **sets, max_new_tokens=length)
    for name in sets:
        found = swept.sets[name].lengths[length]
        assert found.verdicts == alone.sets[name].verdicts
        assert found.refusal == alone.sets[name].refusal
    assert alone.sets["refused"].lengths == {}


def test_undecided_answers_are_counted_apart(swept):
    assert swept.max_new_tokens == 40
    assert list(swept.refused.lengths) == list(LENGTHS)
    two = swept.refused.lengths[2]
    assert (two.refusal.count, two.verdicts["undecided"], two.verdicts["answered"]) == (3, 5, 0)
    assert swept.refused.lengths[40].verdicts["refused"] == 8
    document = swept.to_dict()["sets"]["refused"]["lengths"]
    assert list(document) == [str(length) for length in LENGTHS]
    assert {"refusal", "verdicts", "judges"} == set(document["40"])
    assert document["40"]["refusal"]["low"] < document["40"]["refusal"]["high"] == 1
    json.dumps(document)


def test_the_model_speaks_once_and_each_judge_is_asked_once(organism, sets, monkeypatch):
    generations, calls = [], []
    import weight_edit.evaluation.target as target

    real = target.generate
    monkeypatch.setattr(target, "generate", lambda *given, **options: generations.append(1) or real(*given, **options))
    with toy_judges(monkeypatch):
        from weight_edit.evaluation.registry import JUDGES

        known = dict(JUDGES._known)
        assert set(known) == {"phrases", "length"}
        from weight_edit.evaluation.registry import JudgeSpec

        called = JudgeSpec.__call__
        monkeypatch.setattr(JudgeSpec, "__call__", lambda spec, replies: calls.append(spec) or called(spec, replies))
        found = evaluate(organism, **sets, lengths=LENGTHS, judges=["phrases,word=cannot", "length"])
    assert len(generations) == 1, "all sets at once"
    assert len(calls) == 2
    at = found.refused.lengths[40]
    assert list(at.judges) == ["phrases,word=cannot", "length"]
    assert all(sum(counts.values()) == 8 for counts in at.judges.values())


def test_differences_at_each_length_survive_the_file(organism, sets, swept, tmp_path):
    again = evaluate(organism, **sets, lengths=LENGTHS, base=swept, answers_path=tmp_path / "a.jsonl")
    document = again.to_dict()["differences"]
    assert set(document["refused"]["lengths"]) == {"2", "4", "8", "40"}
    assert document["refused"]["lengths"]["40"]["both"] == 8
    assert document["refused"]["lengths"]["40"]["p"] == 1
    read = load_answers(tmp_path / "a.jsonl")
    assert [answer.lengths for answer in read] == [answer.lengths for answer in again.answers]
    assert [answer.tokens for answer in read] == [answer.tokens for answer in again.answers]
    assert paired_document(swept.answers, read) == document


def test_a_longer_limit_is_allowed_and_a_shorter_one_is_not(organism, sets):
    longer = evaluate(organism, refused=sets["refused"].take(1), lengths="2,4", max_new_tokens=6)
    assert longer.max_new_tokens == 6
    assert list(longer.refused.lengths) == [2, 4]
    with pytest.raises(UsageError, match=r"`max_new_tokens=3` is below the longest of `lengths=\[2, 4\]`; give 4"):
        evaluate(organism, refused=sets["refused"], lengths=(4, 2), max_new_tokens=3)


def test_the_terminal_and_the_card_say_the_length(swept, organism, sets):
    document = evaluate(organism, **sets, lengths=LENGTHS, base=swept).to_dict()
    console = Console(file=io.StringIO(), width=80)
    by_length(document["base"], document, console)
    style(document["base"], document, console)
    shown = console.file.getvalue()
    assert "Verdicts by length in tokens: refused" in shown
    assert "…" not in shown
    lines = shown.splitlines()
    row = next(at for at, line in enumerate(lines) if line.startswith("│ 40 base "))
    assert [cell.strip() for cell in lines[row].split("│")[2:6]] == ["1.000", "0", "0", "0"]
    assert [cell.strip() for cell in lines[row + 2].split("│")[1:7]] == ["edited", "1.000", "0", "0", "0", "+0.000"]
    assert [lines[row + n].split("│")[-2].strip() for n in (3, 4)] == ["[-0.324, +0.324]", "p 1"]
    assert shown.count("[0.676, 1.000]") >= 4
    assert "length in tokens" in shown
    rows = {name: (before, after) for name, before, after in table_rows(document["base"], document)}
    assert rows["refusal of refused requests, first 2 tokens"][1].endswith("5 undecided")
    (index,) = model_index("m", document)
    names = [metric["name"] for metric in index["results"][0]["metrics"]]
    assert "Refusal rate, at most 40 tokens" in names
    assert "Refusal rate, first 4 tokens" in names


def test_a_table_without_a_base_has_a_row_for_each_length(swept):
    console = Console(file=io.StringIO(), width=80)
    by_length(None, swept.to_dict(), console)
    row = next(line for line in console.file.getvalue().splitlines() if line.startswith("│     40 "))
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["1.000", "0", "0", "0"]


def test_a_table_of_style_says_where_p_values_are_corrected():
    def shown(told):
        means = {"tokens": {"value": 10.0}}
        apart = {"tokens": {"value": 5.0, "low": 1.0, "high": 9.0, "p": 0.02, "p_holm": 0.2, "told": told}}
        base = {"sets": {"refused": {"style": means}}}
        console = Console(file=io.StringIO(), width=80)
        style(base, {**base, "differences": {"refused": {"style": apart}}}, console)
        return console.file.getvalue()

    assert "p values corrected for the number of measures" in shown(told=False).replace("\n", " ")
    assert "corrected" not in shown(told=True)


def test_lengths_are_whole_numbers():
    assert answer_lengths("64, 32,64") == (32, 64)
    assert answer_lengths(None) == ()
    assert longest(None, ()) == 64
    for wrong in ("", "32,", "a", "0,32", [1.5, "x"], "-3"):
        with pytest.raises(UsageError, match="`lengths="):
            answer_lengths(wrong)


def test_a_recipe_with_lengths_is_as_long():
    content = {"model": "m", "find": {"target": "a", "baseline": "b"}, "evaluate": {"lengths": [32, 128]}}
    found = parse_recipe(content).evaluate
    assert (found.lengths, found.max_new_tokens) == ((32, 128), 128)
    content["evaluate"] = {"lengths": [32, 128], "max_new_tokens": 40}
    with pytest.raises(UsageError, match="below the longest of"):
        parse_recipe(content)


def test_answers_of_a_server_are_not_cut(monkeypatch, tmp_path):
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(tmp_path))
    with ChatServer(lambda body: "Sure, here it is.") as server:
        result = evaluate(Endpoint(server.url, "m"), refused=PromptSet.of("p", ["tell me"]), lengths=(2, 4))
    assert result.refused.lengths == {}
    assert "lengths" not in result.to_dict()["sets"]["refused"]
    assert any("a chat server gives no tokens to cut" in note for note in result.notes)
    assert {asked.body["max_tokens"] for asked in server.asked} == {4}
