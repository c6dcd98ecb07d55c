"""The one chat of a server, which several projects may have open: each ends its own alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weight_edit.errors import UsageError
from weight_edit.ui.conversation import HOOKS, Conversation
from weight_edit.ui.project import Project
from weight_edit.ui.settings import Settings


class Session:
    sides = turns = ()

    def __init__(self) -> None:
        self.stops = 0

    def reply(self, prompt: str) -> Iterator[None]:
        yield None

    def stop(self) -> None:
        self.stops += 1

    def change_edit(self, **_: Any) -> None:
        return


def test_a_project_ends_its_own_answers_alone(tmp_path: Path, monkeypatch: Any) -> None:
    mine, other = Project(tmp_path / "mine", Settings()), Project(tmp_path / "other", Settings())
    conversation, session = Conversation(), Session()
    monkeypatch.setattr("weight_edit.chat.opening.open_chat", lambda *_, **__: session)
    monkeypatch.setattr(Conversation, "_source", staticmethod(lambda project, way: tmp_path))
    conversation.open(mine, HOOKS)
    conversation.stop(other)
    conversation.close(other)
    assert (session.stops, conversation.session) == (0, session)
    conversation.stop(mine)
    assert session.stops == 1
    conversation.close(mine)
    assert conversation.session is None


def test_nothing_is_loaded_for_no_prompt_and_a_second_one_is_told_to_wait(tmp_path: Path, monkeypatch: Any) -> None:
    project, conversation, opened = Project(tmp_path / "mine", Settings()), Conversation(), []
    monkeypatch.setattr("weight_edit.chat.opening.open_chat", lambda *_, **__: opened.append(Session()) or opened[-1])
    for prompt, said in (("", "write a prompt"), (" \n", "write a prompt"), ("Hello", "find a direction first")):
        with pytest.raises(UsageError, match=said):
            next(conversation.reply(project, HOOKS, prompt))
    assert (opened, conversation.is_busy) == ([], False)
    monkeypatch.setattr(Conversation, "_source", staticmethod(lambda project, way: tmp_path))
    first = conversation.reply(project, HOOKS, "Hello")
    assert next(first) is None
    assert (opened, conversation.is_busy) == ([], True)
    with pytest.raises(UsageError, match="still being answered"):
        next(conversation.reply(project, HOOKS, "Hello"))
    assert list(first) == [""]
    assert (len(opened), conversation.is_busy) == (1, False)


def test_whatever_ends_an_answer_is_said_and_the_next_prompt_is_taken(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory\nand a long account of it")

    project, conversation = Project(tmp_path / "mine", Settings()), Conversation()
    monkeypatch.setattr("weight_edit.chat.opening.open_chat", full)
    monkeypatch.setattr(Conversation, "_source", staticmethod(lambda project, way: tmp_path))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"no answer could be given \(RuntimeError: out of memory\)"):
            list(conversation.reply(project, HOOKS, "Hello"))
        assert not conversation.is_busy
