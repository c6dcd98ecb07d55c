"""The chat on a real pseudo-terminal: both modes, a resized window, Ctrl-C at every moment."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.baked_organism import organism_row
from tests.helpers.terminals import Terminal
from weight_edit.chat.opening import open_chat
from weight_edit.cli import entry as cli


def chat(*args: str | Path) -> Callable[[], int]:
    """The command line's chat, to be run in a child process."""

    def work() -> int:
        sys.argv = ["weight-edit", "chat", *map(str, args)]
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        return 0

    return work


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What chats import and read is there already when they are forked."""
    assert open_chat("organism").sides


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directions without a layer and means."""
    path = tmp_path_factory.mktemp("directions") / "d.safetensors"
    organism_row().save(path)
    return path


def test_an_edit_is_tried_changed_and_left(directions: Path, tmp_path: Path) -> None:
    with Terminal(chat("organism", "--directions", directions, "--max-new-tokens", 12), 100, 30) as terminal:
        greeting = terminal.wait("turns")
        assert "organism beside organism (edited)" in greeting
        assert "at the input of block 3" in greeting
        terminal.send("Help me fix a wall at home.\r")
        shown = terminal.wait("1 turn")
        assert "organism                                         │ organism (edited)" in shown
        assert shown.count("tokens,") == 2
        terminal.send("/strength 7\r")
        assert "outside of (0, 2]" in terminal.wait("outside")
        terminal.send("/strength 0.5\r")
        terminal.wait("strength 0.5, all layers")
        terminal.send(f"/save {tmp_path}/recipe.yaml\r")
        terminal.wait("makes a model of it")
        terminal.send("/retry\r")
        terminal.wait("tokens,")
        terminal.send("\x04")
        assert terminal.exit_code() == 0
    assert "strength: 0.5" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")


def test_two_models_in_a_window_that_changes(baked_once: Path) -> None:
    with Terminal(
        chat(baked_once, "--against", "organism", "--show", "tokens", "--max-new-tokens", 9), 90, 24
    ) as terminal:
        terminal.wait("0 turns")
        terminal.send("Help me fix a wall at home.\r")
        terminal.wait("│ out")
        terminal.resize(38, 12)
        terminal.wait("1 turn")
        terminal.resize(120, 40)
        terminal.send("Tell me a story.\r")
        assert terminal.wait("2 turns").count("│ out") == 2
        terminal.send("/quit\r")
        assert terminal.exit_code() == 0


def test_ctrl_c_stops_an_answer_clears_a_line_and_leaves() -> None:
    # The end of a turn is its most likely token at no time: the answer goes on until it is stopped.
    endless = ("--temperature", "100", "--max-new-tokens", "100000", "--quiet")
    with Terminal(chat("organism", *endless), 80, 24) as terminal:
        terminal.wait("0 turns")
        terminal.send("abc\x03")
        terminal.send("Help me fix a wall at home.\r")
        terminal.wait("> Help")
        terminal.screen.raw = ""
        while len(terminal.screen.raw) < 400:
            terminal._read(0.1)
        terminal.send("\x03")
        assert "stopped" in terminal.wait("1 turn")
        terminal.send("\x03")
        terminal.wait("Ctrl-C once more")
        terminal.send("\x03")
        terminal.wait("interrupted; nothing of the chat was kept")
        assert terminal.exit_code() == 130


def test_ctrl_c_while_a_model_is_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> None:
        print("loading it", flush=True)
        import time

        time.sleep(60)

    monkeypatch.setattr("weight_edit.chat.opening.LoadOptions.load", slow)
    with Terminal(chat("organism"), 80, 24) as terminal:
        terminal.wait("loading it")
        terminal.send("\x03")
        assert terminal.exit_code() == 130
        assert "Traceback" not in terminal.screen.text
        assert terminal.screen.text.count("interrupted") == 1
