"""Models looked for on the Hub: names, or one line that says why there are none."""

from types import SimpleNamespace
from typing import Any

import pytest

from weight_edit.ui.hub_search import search_hub


class Api:
    """The Hub's client, which knows one model and fails on demand."""

    failure: Exception | None = None
    given: dict[str, Any]

    def __init__(self, token: str | None) -> None:
        Api.given = {"token": token}

    def list_models(self, **asked: Any) -> list[Any]:
        Api.given |= asked
        if Api.failure is not None:
            raise Api.failure
        return [SimpleNamespace(id="org/model\x1b[31m\n")]


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "failure", None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_names_are_found_and_plain() -> None:
    for token in (None, "", " "):
        names, problem = search_hub(" qwen ", token)
        assert (len(names), problem) == (1, "")
    assert names[0].isprintable()
    assert (Api.given["search"], Api.given["token"]) == ("qwen", None)


def test_without_words_or_a_network_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    Api.given = {}
    assert search_hub("  ") == ([], "Write some words of the model's name.")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in search_hub("x")[1]
    assert Api.given == {}


def test_what_the_client_says_is_one_line_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "c" * 30
    monkeypatch.setattr(Api, "failure", OSError(f"no route\nfor {token}"))
    names, problem = search_hub("x", token)
    assert names == []
    assert problem == "The Hub cannot be asked: no route for <token>"
