"""The one chat of a server, which several projects may have open: each ends its own alone."""

from pathlib import Path
from typing import Any

from weight_edit.ui.conversation import HOOKS, Conversation
from weight_edit.ui.project import Project
from weight_edit.ui.settings import Settings


class Session:
    def __init__(self) -> None:
        self.stops = 0

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
