"""An access token is cleaned where it comes in, and no output of any call has it, whatever fails."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from huggingface_hub import constants

from tests.helpers.checkpoint_samples import make_checkpoint
from tests.helpers.fake_hub import FakeHub
from weight_edit import redaction
from weight_edit.directions.directions import Directions
from weight_edit.errors import UsageError
from weight_edit.hub.calls import usable_token
from weight_edit.hub.source import resolve
from weight_edit.organism.embedded import folder as organism_folder
from weight_edit.redaction import redact_error, redacted

TOKEN = FakeHub.token
AROUND = ("{}\n", "{}\r\n", "{}\r", " {} ", "{}\t", "\n{}\n\n")
INSIDE = (
    "hf_abc\x01defghij",
    "hf_abc\ndefghij",
    "hf_abc\tdefghij",
    "hf_abc defghij",
    "hf_abcd\x7fefghij",
    "hf_abcdéfghij",
)


BROKEN = {"500": {"error 500"}, "hang up": {"hang up"}}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_given", set())


def directions(path: Path, width: int = 128) -> Path:
    row = torch.nn.functional.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(0)))
    Directions(row).save(path)
    return path


def calls(tmp_path: Path) -> dict[str, list[str | Path]]:
    """Every call that asks the Hub for something, of a repository that is to fail."""
    vector, recipe = tmp_path / "d.safetensors", Path(__file__).parents[2] / "recipes/organism.yaml"
    edit = ["org/model", "--directions", vector, "--out", tmp_path / "out"]
    asked = ["--target", "organism:refused", "--baseline", "organism:answered", "--out", tmp_path / "found.safetensors"]
    return {
        "inspect": ["inspect", "org/model"],
        "prove": ["inspect", "org/model", "--prove"],
        "bake": ["bake", *edit],
        "low-disk": ["bake", *edit, "--low-disk"],
        "adapter": ["adapter", *edit],
        "find": ["find", "org/model", *asked],
        "evaluate": ["evaluate", "org/model", "--refused", "organism:refused:test"],
        "verify": ["verify", "org/model", tmp_path, "--directions", vector],
        "diff": ["diff", "org/model", "organism"],
        "run": ["run", recipe, "--set", "model=org/model", "--out", tmp_path / "run"],
    }


def leaks(text: str, token: str = TOKEN) -> bool:
    return any(form in text for form in (token, quote(token, safe=""), repr(token)[1:-1]))


@pytest.mark.parametrize("form", AROUND)
def test_what_is_around_a_token_is_taken_off(hub: FakeHub, tmp_path: Path, form: str) -> None:
    hub.add("org/private", make_checkpoint(tmp_path / "m"), access="private")
    assert resolve("org/private", token=form.format(TOKEN)).revision == hub.repos["org/private"].commit
    assert {asked.token for asked in hub.asked if asked.path.startswith(("api/models/", "org/"))} == {TOKEN}


@pytest.mark.parametrize("form", AROUND)
@pytest.mark.parametrize("where", ["--token", "HF_TOKEN", "file"])
def test_wherever_it_comes_from(hub, call, tmp_path, monkeypatch, form, where) -> None:
    hub.add("org/private", organism_folder(), access="private")
    options = []
    if where == "--token":
        options = ["--token", form.format(TOKEN)]
    elif where == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", form.format(TOKEN))
    else:
        (tmp_path / "token").write_text(form.format(TOKEN))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    result = call("inspect", "org/private", *options)
    assert result.code == 0, result.err
    assert not leaks(result.out + result.err)


@pytest.mark.parametrize("token", INSIDE)
@pytest.mark.parametrize("where", ["--token", "HF_TOKEN", "file"])
def test_a_token_with_something_inside_is_refused_without_a_part_of_it(
    hub, call, tmp_path, monkeypatch, token, where
) -> None:
    hub.add("org/private", organism_folder(), access="private")
    options = []
    if where == "--token":
        options = ["--token", token]
    elif where == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        (tmp_path / "token").write_text(token, encoding="utf-8")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    result = call("inspect", "org/private", *options, "--json")
    assert result.code == 2
    assert "cannot be sent" in result.json["error"]
    assert "hf_abc" not in result.out + result.err
    assert "fghij" not in result.out + result.err
    assert hub.asked == []


@pytest.mark.parametrize("failing", ["echo", "500", "gone", "hang up"])
@pytest.mark.parametrize("name", list(calls(Path("/tmp"))))
def test_no_output_of_a_call_that_fails_has_the_token(hub, call, tmp_path, monkeypatch, name, failing) -> None:
    """The Hub says the token it was sent, answers nonsense, is gone, or hangs up."""
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\r\n")
    hub.add("org/model", make_checkpoint(tmp_path / "m"), broken=BROKEN.get(failing, set()))
    directions(tmp_path / "d.safetensors")
    hub.echo = True
    if failing == "echo":
        hub.repos["org/model"].access = "nobody"
    elif failing == "gone":
        hub.stop()
    result = call(*calls(tmp_path)[name], "--json")
    assert result.code in (2, 3), result.err
    assert "Traceback" not in result.err
    written = [path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.suffix in (".txt", ".json")]
    assert not leaks(result.out + result.err + "".join(written))
    if failing == "echo":
        assert "<token>" in result.err, "the Hub did say it"


def test_a_data_set_that_cannot_be_loaded(hub, call, tmp_path, monkeypatch) -> None:
    """The library asks with the token that is kept; what it raises may have it."""
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")

    def load_dataset(*args: object, **options: object) -> None:
        import httpx2

        raise httpx2.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}\\n'")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    asked = ["--target", "org/data:train", "--baseline", "organism:answered", "--out", tmp_path / "d.safetensors"]
    for args in (
        ["evaluate", "organism", "--refused", "org/data:train"],
        ["find", "organism", *asked],
    ):
        result = call(*args, "--json")
        assert result.code == 2
        assert "Illegal header value b'Bearer <token>" in result.err
        assert not leaks(result.out + result.err)


def test_a_process_of_its_own_has_it_nowhere(hub: FakeHub, tmp_path: Path) -> None:
    """With the libraries' own logs and warnings, and without this process' changes to them."""
    hub.add("org/model", make_checkpoint(tmp_path / "m"), access="nobody")
    hub.echo = True
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": f"{TOKEN}\n"}
    every = calls(tmp_path)
    directions(tmp_path / "d.safetensors")
    for name in ("inspect", "bake", "low-disk"):
        done = subprocess.run(
            [sys.executable, "-m", "weight_edit", *map(str, every[name])],
            env={**os.environ, **own, "HF_DEBUG": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert not leaks(done.stdout + done.stderr)


def test_errors_that_users_of_python_see_and_their_tracebacks(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", make_checkpoint(tmp_path / "m"), access="nobody")
    hub.echo = True
    with pytest.raises(UsageError) as caught:
        resolve("org/model", token=f"{TOKEN}\n")
    text = "".join(traceback.format_exception(caught.value))
    assert "<token>" in text
    assert not leaks(text)


def test_a_token_is_hidden_however_it_is_written() -> None:
    token = "hf_a/b+c\"d'e%f\\g"
    usable_token(token)
    for form in (token, quote(token), quote(token, safe=""), repr(token), repr(token.encode()), json.dumps(token)):
        assert "b+c" not in redacted(f"before {form} after").replace("%2B", "+"), form
    assert redacted("before hf_" + "a" * 34 + ", after") == "before <token>, after", "one that nobody gave"
    assert redacted("hf_transfer and hf_hub_download stay") == "hf_transfer and hf_hub_download stay"


def test_a_token_that_begins_as_a_known_one_is_hidden_whole() -> None:
    known = "hf_" + "q" * 30
    usable_token(known)
    assert redacted(f"{known}, {known}xyz; {known}\nnext") == "<token>, <token>; <token>\nnext"


def test_a_token_that_is_no_text_breaks_no_message(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_\udcffabcdef")
    assert redacted("with hf_\udcffabcdef in it") == "with <token> in it"
    result = call("inspect", "organsm")
    assert result.code == 2
    assert "cannot be sent: its character 4 of 10" in result.err
    assert "abcdef" not in result.err


def test_errors_of_others_lose_it_wherever_they_keep_it() -> None:
    usable_token(TOKEN)
    inner = OSError(2, f"no {TOKEN}", f"/home/{TOKEN}")
    outer = ValueError("a", {"b": [f"Bearer {TOKEN}".encode(), TOKEN]})
    outer.add_note(f"with {TOKEN}")
    outer.__cause__ = inner
    redact_error(outer)
    assert not leaks("".join(traceback.format_exception(outer)))
    assert outer.args == ("a", {"b": [b"Bearer <token>", "<token>"]})


def test_a_fault_of_ours_is_shown_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    usable_token(TOKEN)
    error = KeyError(TOKEN)
    redaction.show_uncaught(KeyError, error, None)
    shown = capsys.readouterr().err
    assert "KeyError: '<token>'" in shown
    assert not leaks(shown)


def test_an_option_that_is_misspelt(call) -> None:
    result = call("inspect", "organism", f"--tokn={'hf_' + 'a' * 34}")
    assert result.code == 2
    assert "a" * 10 not in result.out + result.err


def test_a_pipe_is_no_token_file(hub, call, tmp_path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "token")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert usable_token(None) is None
    assert redacted("text") == "text"


def test_it_reaches_the_data_sets(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def load_dataset(*args: object, **options: object) -> None:
        given.append(options.get("token"))
        raise ValueError("no more than that")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    searched = ["--target", "org/data:train", "--baseline", "organism:answered", "--out", tmp_path / "d.safetensors"]
    (tmp_path / "r.yaml").write_text(
        "model: organism\nfind: {target: 'organism:refused', baseline: 'organism:answered'}\n"
        "evaluate: {refused: 'org/data:train'}\n"
    )
    for args in (
        ["evaluate", "organism", "--refused", "org/data:train"],
        ["find", "organism", *searched],
        ["verify", "organism", tmp_path, "--prompts", "org/data:train"],
        ["run", tmp_path / "r.yaml", "--out", tmp_path / "run"],
    ):
        given.clear()
        result = call(*args, "--token", TOKEN)
        assert result.code == 2
        assert "no more than that" in result.err
        assert given == [TOKEN], args[0]
        assert not leaks(result.out + result.err)
        # Nothing of it is left for the next call.
        call(*args)
        assert given == [TOKEN, None], args[0]


def test_a_typo_in_a_models_name_is_told_before_prompts_are_downloaded(
    call, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **options: asked.append(args))
    searched = ["--target", "org/data:train", "--baseline", "org/data:train", "--out", tmp_path / "d.safetensors"]
    (tmp_path / "r.yaml").write_text("model: org/none\nfind: {target: 'org/data:train', baseline: 'org/data:test'}\n")
    for args in (
        ["evaluate", "org/none", "--refused", "org/data:train"],
        ["evaluate", "organism", "--against", "org/none", "--refused", "org/data:train"],
        ["find", "org/none", *searched],
        ["run", tmp_path / "r.yaml", "--out", tmp_path / "run"],
    ):
        result = call(*args)
        assert result.code == 2
        assert "org/none" in result.err
    assert asked == []
