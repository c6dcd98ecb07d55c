"""Commands, and the chat without a terminal."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.baked_organism import organism_row
from tests.helpers.chat_replies import PROMPT
from weight_edit.chat.edit import ChatEdit
from weight_edit.chat.sampling import Sampling
from weight_edit.chat.session import ChatSession
from weight_edit.chat.terminal.commands import COMMANDS, ChatState, Leave, as_commands, run_command
from weight_edit.chat.terminal.line_editor import CommandCompleter
from weight_edit.chat.transcript import markdown
from weight_edit.chat.turns import Answer, Turn
from weight_edit.errors import WeightEditError
from weight_edit.runtime.loading import load


@pytest.fixture(scope="module")
def session() -> ChatSession:
    edit = ChatEdit(directions=organism_row().rows)
    return ChatSession(load("organism"), edit=edit, sampling=Sampling(max_new_tokens=4), memory=False)


@pytest.fixture
def state(session: ChatSession) -> ChatState:
    session.clear()
    session.sampling = Sampling(max_new_tokens=4)
    session.change_edit(kind="ablate", strength=1.0, layers=None, at=())
    return ChatState(session)


def test_the_edit_is_changed_by_commands(state: ChatState) -> None:
    for line in ("/strength .7", "/layers 2-4", "/at none", "/temperature 0.5", "/seed 3", "/max-new-tokens 2"):
        assert run_command(state, line).lines
    assert state.session.edit.described == "ablate along 1 direction, strength 0.7, layers 2, 3, 4"
    assert state.session.sampling == Sampling(temperature=0.5, seed=3, max_new_tokens=2)
    run_command(state, "/layers all")
    run_command(state, "/at 2")
    run_command(state, "/kind add length=unit")
    assert state.session.edit.options == {"length": "unit"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/strength", "'' is no number"),
        ("/strength much", "'much' is no number"),
        ("/strength 3", "outside of (0, 2]"),
        ("/layers 9", "the model's are 0 to 5"),
        ("/layers x-y", "is no range"),
        ("/kind magic", "there is no edit 'magic'"),
        ("/kind add", "name the layer to add at: /at 12"),
        ("/stength 1", "there is no command /stength, but /strength"),
        ("/quit now", "/quit stands alone"),
        ("/undo", "no turn"),
        ("/temperature -1", "from 0 to 100"),
        ("/max-new-tokens 1.5", "no whole number"),
        ("/thinking maybe", "'maybe'"),
        ("/template-arg a=1", "template argument 'a'"),
        ("/save recipe.txt", "ends in .yaml"),
        ("/save-chat /nowhere/chat.md", "cannot be written"),
        ("/save-chat here.txt", "ends in .json or .md"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(state: ChatState, line: str, said: str) -> None:
    before = state.session.edit
    with pytest.raises(WeightEditError) as caught:
        run_command(state, line)
    message = as_commands(caught.value)
    assert said in message
    assert "\n" not in message
    assert state.session.edit is before


def test_files_are_replaced_by_the_command_with_an_exclamation_mark_alone(state: ChatState, tmp_path: Path) -> None:
    for command, name in (("save", "recipe.yaml"), ("save-chat", "chat.json")):
        file = tmp_path / name
        run_command(state, f"/{command} {file}")
        earlier = file.read_text(encoding="utf-8") + "# earlier"
        file.write_text(earlier, encoding="utf-8")
        with pytest.raises(WeightEditError) as caught:
            run_command(state, f"/{command} {file}")
        assert "exclamation mark" in as_commands(caught.value)
        assert file.read_text(encoding="utf-8") == earlier
        run_command(state, f"/{command}! {file}")
        assert f"{file.read_text(encoding='utf-8')}# earlier" == earlier
        # Somebody else's file is never replaced.
        file.write_text("mine", encoding="utf-8")
        with pytest.raises(WeightEditError, match="not ours to overwrite"):
            run_command(state, f"/{command}! {file}")
        assert file.read_text(encoding="utf-8") == "mine"
    with pytest.raises(Leave):
        run_command(state, "/exit")


def test_help_and_completion_name_every_command(state: ChatState) -> None:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    def completed(text: str) -> list[str]:
        return [each.text for each in CommandCompleter().get_completions(Document(text), CompleteEvent())]

    lines = run_command(state, "/help").lines
    assert all(any(line.startswith(f"/{name}") for line in lines) for name in COMMANDS)
    assert completed("/st") == ["status", "strength"]
    assert completed("/kind re") == ["rectify", "reflect"]
    assert completed("st") == completed("//st") == []


def test_a_conversation_as_markdown_has_no_structure_of_its_own(state: ChatState) -> None:
    text = "# no heading\n```\n<script>alert(1)</script>\n````"
    answer = Answer(text=text, thought=None, pieces=(), components=(), reason="stopped", edit=None, seconds=0)
    state.session.turns.append(Turn(prompt=text, answers=(answer, answer)))
    lines = markdown(state.session).splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# A chat with `organism (edited)` beside `organism`",
        "## 1",
    ]
    assert lines.count("> `````text") == 3
    assert all(line.startswith(">") for line in lines if "script" in line)


@pytest.fixture
def piped(call, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """The command line's chat with so many lines on its standard input."""

    def run(lines: str, *args: str | Path) -> object:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return call("chat", "organism", "--max-new-tokens", 4, *args)

    return run


def test_a_pipe_gets_answers_as_plain_text(piped: Callable) -> None:
    done = piped(f"{PROMPT}\n\n//slash\n/quit\n{PROMPT}\n")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 2
    assert done.out.startswith("Okay. Here")
    assert "\x1b" not in done.out


def test_a_pipe_gets_one_document_and_what_went_wrong(piped: Callable, tmp_path: Path) -> None:
    organism_row().save(tmp_path / "d.safetensors")
    kept = tmp_path / "chat.json"
    lines = f"{PROMPT}\n/strength 9\n/strength .5\n{PROMPT}\n"
    done = piped(lines, "--directions", tmp_path / "d.safetensors", "--save-chat", kept, "--json")
    assert done.code == 2
    assert "outside of (0, 2]" in done.err
    first, second = done.json["turns"]
    assert [each["edited"] for each in done.json["sides"]] == [False, True]
    assert len(first["answers"][1]["components"]) == first["answers"][1]["tokens"] == 4
    assert "strength 0.5" in second["answers"][1]["edit"]
    assert json.loads(kept.read_text(encoding="utf-8")) == done.json
    again = piped("", "--save-chat", kept)
    assert again.code == 2
    assert "--overwrite" in again.err
    assert piped("", "--save-chat", kept, "--overwrite").code == 0
    theirs = tmp_path / "package.json"
    theirs.write_text('{"name": "theirs"}')
    refused = piped("", "--save-chat", theirs, "--overwrite")
    assert refused.code == 2
    assert "not ours to overwrite" in refused.err
    assert theirs.read_text() == '{"name": "theirs"}'


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--alone",), "give --directions"),
        (("--directions", "none.safetensors"), "none.safetensors"),
        (("--temperature", "-1"), "temperature"),
        (("--template-arg", "nonsense=1"), "template argument"),
        (("--show", "pictures"), "lines, tokens, text"),
        (("--save-chat", "chat.txt"), ".json or .md"),
    ],
)
def test_a_mistake_in_the_call_is_one_line(piped: Callable, args: tuple[str, ...], said: str) -> None:
    done = piped("", *args)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
