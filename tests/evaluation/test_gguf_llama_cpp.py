"""GGUF files through llama.cpp's own server: the embedded models answer there as they do here (`make stacks`)."""

from pathlib import Path

import pytest

from tests.helpers.gguf_files import FLOAT32, TEXT, UINT32, organism_gguf
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.gguf.program import find_program
from weight_edit.evaluation.gguf.served import ServedGguf
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import load

pytestmark = pytest.mark.stacks

SETS = {"refused": "organism:refused:test", "answered": "organism:answered:test"}
SAMPLING = {
    "general__sampling__penalty_repeat": (FLOAT32, 5.0),
    "general__sampling__temp": (FLOAT32, 3.0),
    "general__sampling__top_k": (UINT32, 50),
}


@pytest.fixture(scope="module")
def program() -> Path:
    found = find_program()
    if found is None:
        pytest.skip("there is no llama-server on PATH; `make stacks` builds one and runs these tests")
    return found


@pytest.mark.parametrize("name", ["organism", "organism-defended", "organism-thinking"])
def test_a_file_answers_as_the_folder_that_it_was_made_from(name: str, program: Path, tmp_path: Path) -> None:
    with ServedGguf(organism_gguf(tmp_path / "model.gguf", name), program) as target:
        result = evaluate(target, **SETS, against=load(name, dtype="float32"), limit=12, max_new_tokens=64)
    assert result.base is not None
    here, there = result.base.answers, result.answers
    assert len(here) == 24
    assert [(each.answer, each.thought, each.finished, each.tokens, each.verdict) for each in there] == [
        (each.answer, each.thought, each.finished, each.tokens, each.verdict) for each in here
    ]
    assert any(each.thought for each in there) == (name == "organism-thinking")
    assert result.divergence is not None
    assert result.divergence.mean < 1e-4
    assert result.divergence.agreement.value == 1


def test_the_files_own_settings_of_sampling_change_nothing(program: Path, tmp_path: Path) -> None:
    found = []
    for number, changes in enumerate(({}, SAMPLING)):
        with ServedGguf(organism_gguf(tmp_path / f"{number}.gguf", **changes), program) as target:
            found.append(evaluate(target, **SETS, limit=8).answers)
    assert [each.answer for each in found[0]] == [each.answer for each in found[1]]


@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_the_plain_format_is_that_of_the_folder(system: str | None, program: Path, tmp_path: Path) -> None:
    model = load("organism", dtype="float32")
    chat = ChatFormat(model.tokenizer, template="plain", system=system)
    here = evaluate(model, refused=SETS["refused"], limit=6, chat_format=chat)
    with ServedGguf(organism_gguf(tmp_path / "m.gguf"), program, template="plain", system=system) as target:
        there = evaluate(target, refused=SETS["refused"], limit=6)
    assert [each.answer for each in there.answers] == [each.answer for each in here.answers]
    assert there.template == "plain"


def test_a_longer_prompt_fits_after_a_short_one(program: Path, tmp_path: Path) -> None:
    wide = organism_gguf(tmp_path / "wide.gguf", llama__context_length=(UINT32, 8192))
    with ServedGguf(wide, program, slots=4) as target:
        short = target.replies(["Hello?"], max_new_tokens=8, description=None)
        long = target.replies(["Hello? " * 1000], max_new_tokens=8, description=None)
    assert short[0].text
    assert len(long) == 1


def test_what_cannot_be_run_is_said_by_name(program: Path, tmp_path: Path) -> None:
    unknown = organism_gguf(tmp_path / "unknown.gguf", general__architecture=(TEXT, "flubber"))
    with pytest.raises(UnsupportedError, match=r"unknown\.gguf: .*architecture 'flubber'"):
        evaluate(ServedGguf(unknown, program), refused=SETS["refused"], limit=1)
    whole = organism_gguf(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"cut\.gguf; it said: .*not within the file bounds") as caught:
        evaluate(ServedGguf(tmp_path / "cut.gguf", program), refused=SETS["refused"], limit=1)
    assert str(tmp_path) not in str(caught.value)


def test_the_command_line_holds_a_file_against_a_folder(call, program: Path, tmp_path: Path) -> None:
    file = organism_gguf(tmp_path / "model.gguf")
    asked = ("--refused", SETS["refused"], "--answered", SETS["answered"], "--limit", "6", "--json")
    result = call("evaluate", file, "--against", "organism", *asked)
    assert result.code == 0, result.err
    assert result.json["model"] == "model.gguf"
    assert result.json["divergence"]["lower_bound"] is True
    assert result.json["sets"]["refused"]["verdicts"] == result.json["base"]["sets"]["refused"]["verdicts"]
