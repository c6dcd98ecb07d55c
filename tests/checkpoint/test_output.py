"""An output folder appears whole or not at all, and nothing that is not ours is ever replaced."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.checkpoint_samples import content, make_checkpoint
from tests.helpers.interruptions import exit_code, hidden
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.manifest import record, write_manifest
from weight_edit.checkpoint.rewrite.output import check_output, staged
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain
from weight_edit.errors import UsageError


def fill(folder: Path, text: str = "new") -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)


def ours(folder: Path) -> Path:
    """A folder as we make them."""
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    write_manifest(folder, {}, {"old": record(folder, "old", "added")})
    return folder


def stage(out: Path, error: BaseException | None = None, **options) -> None:
    """Fill a staged folder, then fail if asked to."""
    with staged(out, **options) as folder:
        fill(folder)
        if error is not None:
            raise error


def test_appears_only_at_the_end(tmp_path):
    with staged(tmp_path / "a" / "out") as folder:
        assert folder.parent.parent == tmp_path / "a"
        assert not (tmp_path / "a" / "out").exists()
        fill(folder)
    assert content(tmp_path) == {"a/out/sub/file": b"new"}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "a" / "out").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, UsageError, GeneratorExit])
def test_leaves_nothing_after_a_failure(tmp_path, error):
    with pytest.raises(error):
        stage(tmp_path / "a" / "b" / "out", error("stop"))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_edit_leaves_nothing(tmp_path):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source", shards=2))

    class Stopping(Plain):
        def load(self, *_, **__):
            raise KeyboardInterrupt

    storage = Stopping("model.embed.weight", "F32", (7, 4), 1)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out", source=source.path) as folder:
        rewrite(source, folder, [EditedTensor(source=storage, target=storage, map=None, along_rows=False)])
    assert os.listdir(tmp_path) == ["source"]  # noqa: PTH208


def test_an_empty_folder_and_leftovers_do_not_block(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.partial-0123").mkdir()
    (tmp_path / ".out.partial-0123" / "x").touch()
    with staged(tmp_path / "out") as folder:
        fill(folder)
    assert (tmp_path / "out" / "sub" / "file").exists()


def test_refuses_what_is_in_the_way(tmp_path):
    ours(tmp_path / "full")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "dangling").symlink_to("nothing")
    for name, reason in (
        ("full", "`overwrite=True`"),
        ("file", "is not a folder"),
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("file/out", "is not a folder"),
        ("n" * 300, "cannot be used"),
    ):
        with pytest.raises(UsageError, match=reason):
            check_output(tmp_path / name)
        with pytest.raises(UsageError, match=reason), staged(tmp_path / name):
            pytest.fail("must not start")
    assert check_output(tmp_path / "fresh") == tmp_path.resolve() / "fresh"


def test_overwrite_replaces_only_at_the_end(tmp_path):
    out = ours(tmp_path / "out")
    with pytest.raises(RuntimeError):
        stage(out, RuntimeError(), overwrite=True)
    assert set(content(out)) == {"weight_edit.json", "old"}
    with staged(out, overwrite=True) as folder:
        fill(folder)
        assert set(content(out)) == {"weight_edit.json", "old"}
    assert content(tmp_path) == {"out/sub/file": b"new"}


def test_overwrite_brings_the_old_folder_back_if_the_last_step_fails(tmp_path, monkeypatch):
    out = ours(tmp_path / "out")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "files":
            raise OSError(errno.EIO, "broken disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="broken disk"), staged(out, overwrite=True) as folder:
        fill(folder)
    assert set(content(tmp_path)) == {"out/weight_edit.json", "out/old"}


def test_overwrite_spares_what_is_not_ours(tmp_path, monkeypatch):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").touch()
    with pytest.raises(UsageError, match="not ours to overwrite"):
        check_output(other, True)
    mine = ours(tmp_path / "mine")
    (mine / "inner").mkdir()
    (mine / "inner" / "file").touch()
    write_manifest(mine, {}, {name: record(mine, name, "added") for name in ("old", "inner/file")})
    for here in (mine, mine / "inner"):
        monkeypatch.chdir(here)
        with pytest.raises(UsageError, match="current folder"):
            check_output(mine, True)
        with pytest.raises(UsageError, match="current folder"):
            check_output(os.path.relpath(mine), True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(mine))
    with pytest.raises(UsageError, match="home folder"):
        check_output(mine, True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_output(mine, True) == mine.resolve()
    for path in ("/", "."):
        with pytest.raises(UsageError):
            check_output(path, True)


def test_source_and_output_may_not_overlap(tmp_path):
    source = ours(tmp_path / "models" / "source")
    (tmp_path / "models" / "run.json").touch()
    (tmp_path / "alias").symlink_to("models")
    for out in (source, source / "out", tmp_path / "models", tmp_path / "alias" / "source"):
        with pytest.raises(UsageError, match="overlap"):
            check_output(out, True, source=source)
    check_output(tmp_path / "models" / "source-edited", True, source=source)


def test_says_how_much_space_is_missing(tmp_path):
    with pytest.raises(UsageError, match=r"1000000\.0 TB needed.* missing"):
        check_output(tmp_path / "out", needed_bytes=10**18)


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")])
def test_a_disk_that_fails_is_a_users_error(tmp_path, number, says):
    with pytest.raises(UsageError, match=says):
        stage(tmp_path / "out", OSError(number, os.strerror(number)))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_appears_meanwhile_is_kept(tmp_path):
    def race() -> None:
        with staged(tmp_path / "out"):
            ours(tmp_path / "out")

    with pytest.raises(UsageError, match="not empty"):
        race()
    assert set(content(tmp_path)) == {"out/weight_edit.json", "out/old"}


def test_works_outside_the_main_thread(tmp_path):
    def work() -> None:
        with staged(tmp_path / "out") as folder:
            fill(folder)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (tmp_path / "out" / "sub" / "file").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_process_leaves_nothing(tmp_path, number):
    code = (
        "import sys, time\nfrom weight_edit.checkpoint.rewrite.output import staged\n"
        "with staged(sys.argv[1]) as folder:\n"
        "    (folder / 'x').touch()\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    process.wait(timeout=30)
    process.stdout.close()
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_second_signal_does_not_stop_the_cleaning_up(tmp_path, monkeypatch, error):
    unlink, once = os.unlink, [True]

    def pressed(*arguments, **options):
        if once[0]:
            once[0] = False
            raise error
        unlink(*arguments, **options)

    def work() -> None:
        with staged(tmp_path / "out") as folder:
            (folder / "x").touch()
            monkeypatch.setattr(os, "unlink", pressed)
            raise RuntimeError

    with pytest.raises((RuntimeError, error)):
        work()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_an_old_output_survives_a_kill_between_the_two_renames(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out, {"what": "old"}, {})
    old = content(out)["weight_edit.json"]
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "files":
            os._exit(9)
        return rename(self, target)

    def work() -> None:
        Path.rename = killed  # type: ignore[method-assign]
        with staged(out, overwrite=True) as folder:
            write_manifest(folder, {"what": "new"}, {})

    assert exit_code(work) == 9
    # Whatever the next call is, it finds the old output in its place, or it puts a new one there; no copy stays hidden.
    with pytest.raises(UsageError, match="pass `overwrite=True`"), staged(out) as folder:
        write_manifest(folder, {"what": "newer"}, {})
    assert content(tmp_path) == {"out/weight_edit.json": old}
    assert hidden(tmp_path) == []
