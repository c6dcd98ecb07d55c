"""Whatever a call of the Hub raises becomes one line, and no signed address is in it."""

import logging
from io import StringIO

import httpx2
import pytest
from huggingface_hub import errors as hub
from huggingface_hub.utils import are_progress_bars_disabled

from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.calls import hub_call
from weight_edit.utils import progress

SIGNED = "https://cdn.example/model.safetensors?Signature=secret&Expires=1"


class Response:
    headers, request = {}, None

    def __init__(self, status_code):
        self.status_code = status_code


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub.HfHubHTTPError("bad token\nmore", response=Response(401)), "does not accept the token for org/model"),
        (
            hub.HfHubHTTPError(f"403 for url '{SIGNED}'", response=Response(403)),
            "refused org/model at revision v1: 403",
        ),
        (hub.RemoteEntryNotFoundError("gone", response=Response(404)), "no longer there"),
        (httpx2.ConnectError("refused"), "cannot be reached"),
        (httpx2.ReadTimeout("slow"), "could not be downloaded: slow"),
        (httpx2.RemoteProtocolError(f"cut: {SIGNED}"), "could not be downloaded: cut"),
        (hub.XetDownloadError("hash mismatch"), "could not be downloaded: hash mismatch"),
        (ValueError("too large for the regular download method"), "too large"),
        (OSError(28, "No space left on device"), "No space left"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_one_line(error, words):
    with pytest.raises(UsageError, match=words) as caught, hub_call("org/model", "v1"):
        raise error
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_our_own_errors_pass_as_they_are():
    with pytest.raises(UnsupportedError, match=r"^mine$"), hub_call("org/model", None):
        raise UnsupportedError("mine")


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("quiet", "where", "drawn"), [(False, Terminal, True), (True, Terminal, False), (False, StringIO, False)]
)
def test_bars_are_drawn_on_a_terminal_alone_and_as_quiet_has_it(quiet, where, drawn, monkeypatch):
    monkeypatch.setattr("sys.stderr", where())
    with progress.quieted(quiet), hub_call("org/model", None):
        assert are_progress_bars_disabled() is not drawn
    assert not are_progress_bars_disabled()


def test_a_traceback_in_the_library_s_log_is_not_written():
    """It would have addresses with their signatures, and headers with tokens."""
    written = StringIO()
    handler = logging.StreamHandler(written)
    log = logging.getLogger("huggingface_hub")
    log.addHandler(handler)
    try:
        with hub_call("org/model", None):
            try:
                raise OSError(f"cut: {SIGNED}")
            except OSError:
                log.exception("failed at %s", SIGNED, stack_info=True)
    finally:
        log.removeHandler(handler)
    assert written.getvalue() == "failed at https://cdn.example/model.safetensors\n"
