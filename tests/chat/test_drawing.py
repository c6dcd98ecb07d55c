"""Answers on a terminal: rows, columns and bars, whatever stands in a text."""

import io
import random
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.helpers.terminals import Screen
from weight_edit.chat.meter import Scale
from weight_edit.chat.terminal.bars import WIDTH, Bars
from weight_edit.chat.terminal.drawing import ReplyDrawing
from weight_edit.chat.terminal.region import Region
from weight_edit.chat.terminal.safe_text import safe_text
from weight_edit.chat.terminal.wrapping import wrapped
from weight_edit.chat.turns import Answer, Ended, Token

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\x08\r\x00\u202eabc\u2066\ufeff\U000e0041"


def rows(text: str, width: int) -> list[str]:
    """The rows of a text."""
    return [text[row.start : row.end] for row in wrapped(text, width)]


def test_rows_break_at_spaces_and_within_long_words() -> None:
    assert rows("hello big world of words", 10) == ["hello big", "world of", "words"]
    assert rows("a   b\n  indented code\n\nend", 10) == ["a   b", "  indented", "code", "", "end"]
    assert rows("aaaaaaaaaaaaaa bb", 10) == ["aaaaaaaaaa", "aaaa bb"]
    assert rows("漢字漢字 ok e\u0301e\u0301", 7) == ["漢字漢", "字 ok", "e\u0301e\u0301"]
    assert rows("", 7) == [""]


def test_rows_are_never_too_wide_nothing_is_lost_and_what_is_drawn_stays() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice("ab 漢\n👩\u200d\u0301é ") for _ in range(draw.randrange(30)))
        width = draw.randrange(6, 12)
        found = wrapped(text, width)
        assert max(cell_len(row.rstrip(" ")) for row in rows(text, width)) <= width
        kept = "".join(rows(text, width)).replace(" ", "")
        assert kept == text.replace(" ", "").replace("\n", "")
        for end in range(len(text)):
            begun = wrapped(text[:end], width)
            assert begun[:-1] == found[: len(begun) - 1]


def test_nothing_of_a_text_is_obeyed_or_hidden() -> None:
    found = safe_text(f"a{HOSTILE}b\tc\u00a0d\u3000e\u2028f")
    assert found == "a\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\x08\\x00\\u202eabc\\u2066\\ufeff\\U000e0041b    c d  e\nf"
    assert safe_text("naïve 漢字 👩\u200d👧 سلام") == "naïve 漢字 👩\u200d👧 سلام"


@pytest.mark.parametrize(
    ("component", "drawn", "plain"),
    [
        (0.0, "", ""),
        (10.0, "█████", "#####"),
        (5.0, "██▌", "##"),
        (20.0, "█████+", "#####+"),
        (-5.0, "     -", "     -"),
    ],
)
def test_a_bar_is_empty_at_the_baseline_and_full_at_the_target(component: float, drawn: str, plain: str) -> None:
    scale = Scale(baseline=0.0, target=10.0)
    assert Bars(scale).bar(component) == f"{drawn:{WIDTH}}"
    assert Bars(scale, ascii_only=True).bar(component) == f"{plain:{WIDTH}}"


def test_without_means_a_bar_is_full_at_the_largest_component() -> None:
    bars = Bars(None)
    assert bars.bar(0.0).strip() == ""
    bars.note(-4.0)
    assert bars.bar(-4.0).strip() == bars.bar(4.0).strip() == "█████"
    assert bars.bar(2.0).strip() == "██▌"


class Drawn:
    """A reply drawn on a screen of so many columns."""

    def __init__(self, columns: int, sides: int = 2, shown: str = "lines", lines: int = 30) -> None:
        self.screen = Screen(columns, lines)
        file = io.StringIO()
        self._console = Console(file=file, force_terminal=True, width=columns, emoji=False)
        session = SimpleNamespace(sides=[SimpleNamespace(name=f"model {number}") for number in range(sides)], layer=3)
        self._drawing = ReplyDrawing(session, self._console, Bars(Scale(0.0, 10.0)), shown)
        self._drawing._last = float("inf")
        self._file = file
        self._texts = [""] * sides

    def say(self, side: int, text: str, component: float = 5.0) -> None:
        self._drawing.show(Token(side=side, text=text, token=1, component=component, thought=False))
        self._texts[side] += text
        self._drawing.draw()
        self._carry_out()

    def end(self) -> str:
        for side, text in enumerate(self._texts):
            answer = Answer(
                text=text, thought=None, pieces=(text,), components=(5.0,), reason="end", edit=None, seconds=1.0
            )
            self._drawing.show(Ended(side=side, answer=answer))
        self._drawing.finish()
        self._carry_out()
        return self.screen.text

    def _carry_out(self) -> None:
        self.screen.write(self._file.getvalue())
        self._file.seek(0)
        self._file.truncate()


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The size that drawings take the window for."""
    size = SimpleNamespace(columns=60, lines=30)
    monkeypatch.setattr(Region, "size", property(lambda _: size))
    monkeypatch.setenv("XTERM_VERSION", "cuts lines off")
    monkeypatch.delenv("TMUX", raising=False)
    return size


def test_two_columns_stay_straight_whatever_they_hold(window: SimpleNamespace) -> None:
    drawn = Drawn(60)
    words = [
        "漢字漢字 ",
        "emoji 👩\u200d👧 ",
        "سلام عليكم ",
        "e\u0301\u0301\u0301 zalgo ",
        HOSTILE,
        "plain words ",
        "\n",
    ]
    for word in words * 4:
        drawn.say(0, word)
        drawn.say(1, "b ")
    lines = drawn.end().splitlines()
    assert lines[0].startswith("model 0")
    assert {line.index("│") for line in lines} == {lines[0].index("│")} or len({_cells(line) for line in lines}) == 1
    assert drawn.screen.obeyed <= set("AGKJmh")
    assert "title" in drawn.screen.text


def _cells(line: str) -> int:
    """The cells in front of the separator."""
    return cell_len(line.partition("│")[0])


def test_a_side_that_says_more_goes_on_alone_and_lines_are_drawn_once(window: SimpleNamespace) -> None:
    drawn = Drawn(60)
    for number in range(40):
        drawn.say(0, f"w{number} ")
        if number < 5:
            drawn.say(1, f"v{number} ")
    text = drawn.end()
    for number in range(40):
        assert text.split().count(f"w{number}") == 1
    assert text.count("v4") == text.count("model 1") == 1


def test_a_window_that_becomes_narrow_and_wide_again_loses_nothing(window: SimpleNamespace) -> None:
    drawn = Drawn(60)
    for number in range(60):
        window.columns = drawn.screen.columns = {20: 30, 40: 100}.get(number, window.columns)
        drawn.say(0, f"w{number} ")
        drawn.say(1, f"v{number} ")
    text = drawn.end()
    for number in range(60):
        assert f"w{number}" in text.split()
        assert f"v{number}" in text.split()
    # Below one another, each with its name, and beside one another again.
    assert text.count("model 0") == 3


def test_names_stand_above_their_columns_after_the_window_has_changed(window: SimpleNamespace) -> None:
    drawn = Drawn(60)
    for number in range(60):
        window.columns = drawn.screen.columns = 60 if number < 30 else 100
        drawn.say(0, f"w{number} ")
        drawn.say(1, f"v{number} ")
    lines = drawn.end().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("model 0"))
    assert last > 1
    assert {_cells(line) for line in lines[last:] if "│" in line} == {_cells(lines[last])}


def test_a_low_window_shows_the_end(window: SimpleNamespace) -> None:
    window.lines = 6
    drawn = Drawn(60, shown="tokens", lines=6)
    for number in range(12):
        drawn.say(0, f"w{number}")
    for number in range(12):
        drawn.say(1, f"v{number}")
    text = drawn.end()
    assert [line.split()[0] for line in text.splitlines() if line.startswith("w")] == [f"w{n}" for n in range(12)]


def test_one_side_has_no_columns(window: SimpleNamespace) -> None:
    drawn = Drawn(60, sides=1)
    drawn.say(0, "some words ")
    text = drawn.end()
    assert "│" not in text
    assert "model" not in text
    assert text.splitlines()[0].startswith("some words")
    assert text.splitlines()[0].rstrip().endswith("██▌")
