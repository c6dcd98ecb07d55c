"""Some of the Hubs that `benchmarks/hostile_hub.py` tries: bounded, one line, no token, nothing said that is not so."""

from pathlib import Path

import pytest

from tests.helpers.fake_hub import FakeHub
from tests.helpers.hostile_hub import MODES
from weight_edit.checkpoint.manifest import record
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub import client
from weight_edit.hub.destination import Destination
from weight_edit.hub.source import resolve
from weight_edit.publish.upload import upload

PUSHED = (
    "commit: 400 MB",
    "info: 256 MB in gzip",
    "readback: a byte at a time",
    "tree: pages without an end",
    "create: in conflict for ever",
    "put: wait for a year",
    "put: wait for 10^400 s",
    "batch: control characters",
    "commit: the token",
    "upload of another object",
    "upload to nowhere",
    "commit id that is a path",
)
FETCHED = (
    "tree: pages without an end",
    "resolve: redirect to file://",
    "cdn: wait for a year",
    "cdn: a byte at a time",
)
BY_NAME = {(mode.verb, mode.name): mode for mode in MODES}


@pytest.fixture
def bounded(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub, before a client whose bounds are small."""
    for name, value in {"SILENCE": 1.0, "COMMIT": 1.0, "WHOLE": 1.0, "REPLY": 1 << 20, "_PAGES": 5}.items():
        monkeypatch.setattr(client, name, value)
    return hub


@pytest.mark.parametrize("name", PUSHED)
def test_a_push_to_a_hostile_hub_is_one_line(bounded: FakeHub, tmp_path: Path, name: str) -> None:
    for file in ("README.md", "model.safetensors"):
        (tmp_path / file).write_bytes(b"---\nlicense: mit\n---\n" + file.encode())
    sent = {file: record(tmp_path, file, "added") for file in ("README.md", "model.safetensors")}
    mode = BY_NAME["push", name]
    bounded.hostile, bounded.lie = mode.hostile, mode.lie
    with pytest.raises((UsageError, VerificationError)) as caught:
        upload(tmp_path, sent, Destination(repo_id="me/model"), token=bounded.token)
    said = str(caught.value)
    assert said.isprintable()
    assert bounded.token not in said + str(caught.value.__cause__) + repr(caught.value.__cause__)
    assert ("the commit was made" in said) is (bounded.commits > 0)
    if not bounded.commits:
        assert "nothing was committed" in said or "is not known" in said


@pytest.mark.parametrize("name", FETCHED)
def test_a_fetch_from_a_hostile_hub_is_one_line(bounded: FakeHub, baked: Path, name: str) -> None:
    bounded.add("me/model", baked)
    bounded.hostile = BY_NAME["bake", name].hostile
    with pytest.raises(UsageError) as caught:
        resolve("me/model", token=bounded.token)
    assert str(caught.value).isprintable()
    assert bounded.token not in str(caught.value)


def test_a_client_of_the_users_own_stays(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.utils import _http

    theirs = httpx2.Client()
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", lambda: theirs)
    _http.close_session()
    with client.bounded_client():
        assert get_session() is theirs
    assert get_session() is theirs


def test_the_bounds_are_those_of_our_calls_alone(hub: FakeHub, baked: Path) -> None:
    """Whoever calls huggingface_hub beside us has the client, and the open connections, that they had."""
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.utils import _http

    hub.add("me/model", baked)
    theirs = get_session()
    factory = _http._GLOBAL_CLIENT_FACTORY
    with client.bounded_client():
        ours = get_session()
        with client.bounded_client():
            assert get_session() is ours is not theirs
        assert get_session() is ours
        # As the library does where a connection breaks.
        _http.close_session()
        assert type(get_session()) is type(ours)
    assert get_session() is theirs
    assert not theirs.is_closed
    with pytest.raises(UsageError):
        resolve("me/nothing")
    assert resolve("me/model", weights=False).on_hub
    assert get_session() is theirs
    assert _http._GLOBAL_CLIENT_FACTORY is factory
    assert HfApi().model_info("me/model").sha == hub.repos["me/model"].commit


def test_a_list_that_is_asked_for_again_later_has_an_end(bounded: FakeHub, baked: Path) -> None:
    bounded.add("me/model", baked)
    for _ in range(3 * client._PAGES):
        assert resolve("me/model", token=bounded.token, weights=False).revision == bounded.repos["me/model"].commit
