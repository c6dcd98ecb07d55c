"""What was proven once is not proven again, and what goes wrong in the process that proves is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import weight_edit
from tests.helpers.families import family_config, save_family
from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.proofs import architecture as proof
from weight_edit.proofs import cache, proven
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.proofs.record import AblationProof, ProvenAnatomy
from weight_edit.utils.cache_folder import cache_folder, own_cache

NOTHING = Stored({})
LAYOUT = Layout(parameters={}, how={}, missing={}, mismatched={}, clashes=(), extra=())
ROOT = str(Path(weight_edit.__file__).parents[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, with an empty cache beside it."""
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(tmp_path / "cache"))
    family_config("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def records(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache").rglob("*"))


def count_proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    original = proof.derive_and_prove

    def counted(folder: Path, name: str, stored: Stored, *, trust_remote_code: bool = False) -> ProvenAnatomy:
        calls.append(name)
        return original(folder, name, stored, trust_remote_code=trust_remote_code)

    monkeypatch.setattr(proof, "derive_and_prove", counted)
    return calls


def test_the_second_call_proves_nothing_and_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_proofs(monkeypatch)
    first = proven_anatomy(folder, NOTHING, name="mine")
    assert proven_anatomy(folder, NOTHING) == first
    assert calls == ["mine"]
    # Nothing temporary is left beside the record.
    assert [path.suffix for path in records(folder)] == ["", ".json"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', "\xff", "[" * 100_000])
def test_a_damaged_record_is_made_again(folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_proofs(monkeypatch)
    first = proven_anatomy(folder, NOTHING)
    path = records(folder)[-1]
    path.write_text(damage, encoding="latin-1")
    assert proven_anatomy(folder, NOTHING) == first
    assert len(calls) == 2
    assert json.loads(path.read_text(encoding="utf-8"))["key"] == path.stem


@pytest.mark.parametrize("what", ["a writer", "the digest"])
def test_a_record_whose_content_was_changed_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """An edit would leave out whatever is missing from the record."""
    calls = count_proofs(monkeypatch)
    first = proven_anatomy(folder, NOTHING)
    path = records(folder)[-1]
    entry = json.loads(path.read_text(encoding="utf-8"))
    if what == "a writer":
        entry["proven"]["anatomy"]["blocks"][-1]["writers"].pop()
    else:
        entry.pop("sha256")
    path.write_text(json.dumps(entry), encoding="utf-8")
    assert proven_anatomy(folder, NOTHING) == first
    assert len(calls) == 2
    assert proven_anatomy(folder, NOTHING) == first
    assert len(calls) == 2


def test_a_record_under_another_name_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_proofs(monkeypatch)
    proven_anatomy(folder, NOTHING)
    path = records(folder)[-1]
    config = folder / "config.json"
    config.write_bytes(config.read_bytes() + b"\n")
    key = cache.key_of(config.read_bytes(), NOTHING.digest())
    assert key != path.stem
    path.rename(path.with_name(f"{key}.json"))
    proven_anatomy(folder, NOTHING)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["fifo", "link", "stranger"])
def test_a_record_that_another_may_have_put_there_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    calls = count_proofs(monkeypatch)
    proven_anatomy(folder, NOTHING)
    path = records(folder)[-1]
    if kind == "stranger":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 4321, -1)
    else:
        elsewhere = path.rename(path.with_suffix(".elsewhere"))
        # Reading a pipe that nobody writes would never end.
        os.mkfifo(path) if kind == "fifo" else path.symlink_to(elsewhere)
    proven_anatomy(folder, NOTHING)
    assert len(calls) == 2


def test_the_key_depends_on_config_versions_and_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {cache.key_of(b"{}"), cache.key_of(b"{} ")}
    monkeypatch.setattr(cache, "version", lambda name: f"{name} of tomorrow")
    keys.add(cache.key_of(b"{}"))
    (tmp_path / "weight_edit").mkdir()
    source = tmp_path / "weight_edit/__init__.py"
    monkeypatch.setattr(cache, "PACKAGE", source.parent)
    for text in ("a = 1", "a = 2"):
        source.write_text(text, encoding="utf-8")
        keys.add(cache.key_of(b"{}"))
    assert len(keys) == 5
    assert None not in keys
    source.unlink()
    assert cache.key_of(b"{}") is None


def test_other_tensors_on_disk_are_looked_at_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_proofs(monkeypatch)
    first = proven_anatomy(folder, NOTHING)
    stored = Stored(first.anatomy.shapes)
    second = proven_anatomy(folder, stored)
    assert second.anatomy == first.anatomy
    assert first.layout.parameters == {}
    assert second.layout.parameters.keys() == first.layout.missing.keys() == first.anatomy.shapes.keys()
    backwards = Stored(dict(reversed(first.anatomy.shapes.items())))
    assert proven_anatomy(folder, backwards) == second
    assert len(calls) == 2


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("WEIGHT_EDIT_CACHE")
    assert cache_folder() == tmp_path / "xdg/weight_edit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache/weight_edit"


def test_a_call_can_have_a_cache_of_its_own(tmp_path: Path) -> None:
    before = cache_folder()
    with own_cache(tmp_path), ThreadPoolExecutor(1) as other:
        assert cache_folder() == tmp_path
        assert other.submit(cache_folder).result() == before
    assert cache_folder() == before


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(folder.parent / "file"))
    assert proven_anatomy(folder, NOTHING).anatomy.architecture == "LlamaForCausalLM"


def test_refusals_and_trusted_code_are_not_remembered(folder: Path) -> None:
    proven_anatomy(folder, NOTHING, trust_remote_code=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 0}), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(UsageError, match="num_hidden_layers"):
            proven_anatomy(folder, NOTHING)
    assert records(folder) == []
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json: there is no such file"):
        proven_anatomy(folder, NOTHING)


def test_a_child_answers_as_this_process_does(folder: Path) -> None:
    here = proof.derive_and_prove(folder, "mine", NOTHING)
    there = proven._in_a_child(folder, "mine", NOTHING, False)
    assert there.anatomy == here.anatomy
    assert there.layout == here.layout
    assert there.proof.points == here.proof.points
    (folder / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(UnsupportedError) as expected:
        proof.derive_and_prove(folder, "mine", NOTHING)
    with pytest.raises(UnsupportedError) as given:
        proven._in_a_child(folder, "mine", NOTHING, False)
    assert str(given.value) == str(expected.value)


SCRIPTS = {
    "was killed by signal 9": "kill -9 $$",
    r"exit code 3 \(it said nothing\)": "exit 3",
    r"exit code 1 \(ImportError: no torch\)": "echo Traceback >&2; echo 'ImportError: no torch' >&2; exit 1",
    r"failed with exit code 0": "echo chatter",
    "gave nonsense": "echo '{\"proven\": 3}'",
    "no process could be started": None,
}


@pytest.mark.parametrize("message", SCRIPTS)
def test_a_child_that_fails_is_one_line(folder: Path, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder.parent / "python"
    if SCRIPTS[message] is not None:
        script.write_text(f"#!/bin/sh\n{SCRIPTS[message]}\n", encoding="utf-8")
        script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(UsageError, match=message) as found:
        proven._in_a_child(folder, "mine", NOTHING, False)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith("mine: ")


def test_chatter_before_the_answer_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ProvenAnatomy(
        proof.derive_and_prove(folder, "mine", NOTHING).anatomy, AblationProof(0.0, 0.5, 0.0, 3, 9), LAYOUT
    )
    answer = folder.parent / "answer"
    answer.write_text("a warning\n" + proven.answer_of(found) + "\n", encoding="utf-8")
    script = folder.parent / "python"
    script.write_text(f"#!/bin/sh\ncat {answer}\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    assert proven._in_a_child(folder, "mine", NOTHING, False) == found


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in listed.read_text(encoding="ascii").split()] if listed.exists() else []


def running(process: int) -> bool:
    """Whether a process is there, and not only its entry that nobody has waited for."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
def test_an_interrupt_ends_the_child_too(folder: Path) -> None:
    save_family("llama", folder)
    command = [sys.executable, "-m", "weight_edit", "inspect", str(folder)]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 60
        while not (found := children(run.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "\nweight-edit: interrupted" in f"\n{said}"
    while any(running(child) for child in found) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(running(child) for child in found)
