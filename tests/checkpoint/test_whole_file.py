"""Files are written whole or not at all, under a random name first; links and devices are neither followed nor gone."""

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from weight_edit.checkpoint.manifest import write_manifest
from weight_edit.checkpoint.whole_file import append_line, save_whole, whole_file, write_whole
from weight_edit.directions.directions import Directions
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import write_answers


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old\n")

    def interrupted() -> None:
        with whole_file(path) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old\n"
    write_whole(path, b"new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_permissions_are_those_of_a_new_file_or_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").chmod(0o600)
    write_whole(tmp_path / "plain", "x")
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o600


def _a_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _a_dangling_link(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("nothing"))


def _a_link_to_a_device(path: Path, target: Path) -> None:
    path.symlink_to("/dev/null")


def _a_pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


def _a_socket(path: Path, target: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def _a_device(path: Path, target: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")


IN_THE_WAY = (_a_link, _a_dangling_link, _a_link_to_a_device, _a_pipe, _a_socket, _a_device)
WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: save_whole(path, "x"),
    "line": lambda path: append_line(path, "x"),
    "directions": lambda path: Directions(torch.eye(3)[:1]).save(path),
    "answers": lambda path: write_answers(path, []),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("put", IN_THE_WAY)
def test_what_is_no_regular_file_is_neither_written_to_nor_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, Path], None], writer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "precious"
    target.write_text("precious")
    put(tmp_path / "out", target)
    before = (tmp_path / "out").lstat()
    with pytest.raises(UsageError, match=r"out is a (link|device, a pipe or a socket)"):
        WRITERS[writer](tmp_path / "out")
    assert (tmp_path / "out").lstat()[:3] == before[:3]
    assert target.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["out", "precious"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["answers.jsonl", "d.safetensors", "weight_edit.json"])
def test_a_users_file_or_link_with_the_name_of_an_unfinished_one_stays(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for taken, content in ((f"{name}.partial", None), (f".{name}.partial", precious)):
        if content is None:
            (folder / taken).write_text("mine")
        else:
            (folder / taken).symlink_to(content)
    if name == "weight_edit.json":
        # What lies in the folder has to be in the manifest, so that the link is read as a file here.
        (folder / f".{name}.partial").unlink()
        (folder / f".{name}.partial").symlink_to(f"{name}.partial")
        records = {taken: _record(folder, taken) for taken in os.listdir(folder)}  # noqa: PTH208
        write_manifest(folder, {}, records)
    elif name.endswith("jsonl"):
        write_answers(folder / name, [])
    else:
        Directions(torch.eye(3)[:1]).save(folder / name)
    assert (folder / f"{name}.partial").read_text() == "mine"
    assert (folder / f".{name}.partial").is_symlink()
    assert precious.read_text() == "precious"


def _record(folder: Path, name: str):
    import hashlib

    from weight_edit.checkpoint.manifest import FileRecord

    data = (folder / name).read_bytes()
    return FileRecord(hashlib.sha256(data).hexdigest(), len(data), "added")


@pytest.mark.parametrize(
    "arguments",
    [
        ("find", "organism", "--target", "organism:refused", "--baseline", "organism:answered", "--out"),
        ("diff", "organism", "organism", "--save"),
        ("evaluate", "organism", "--answered", "organism:answered:test", "--limit", "1", "--answers"),
        ("inspect", "--all", "--page"),
    ],
)
def test_overwriting_spares_files_of_another_kind_and_what_is_no_file(call, tmp_path: Path, arguments) -> None:
    options = [] if arguments[0] == "inspect" else ["--overwrite"]
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("precious")
    result = call(*arguments, thesis, *options)
    assert result.code == 2
    assert "thesis.tex is not a file of the kind that is written here" in result.err
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("null", "null is a link"), ("pipe", "pipe is a device, a pipe or a socket")):
        result = call(*arguments, tmp_path / name, *options)
        assert result.code == 2
        assert said in " ".join(result.err.split())
    assert thesis.read_text() == "precious"
    assert (tmp_path / "null").is_symlink()


def test_a_folder_that_nothing_can_be_written_to_is_named_before_any_work(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"weight_edit": "1", "steps": {}}', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"answer": "Yes."}\n', encoding="utf-8")
    # Root may write everywhere.
    monkeypatch.setattr("weight_edit.checkpoint.whole_file.os.access", lambda _, mode: not mode & os.W_OK)
    prompts = ("--target", "organism:refused", "--baseline", "organism:answered")
    for arguments in (
        ("find", "organism", *prompts, "--out", tmp_path / "d.safetensors"),
        ("judge", tmp_path / "a.jsonl", "--out", tmp_path / "j.jsonl"),
        ("run", "organism", "--out", tmp_path / "run", "--resume"),
        ("run", "organism", "--out", tmp_path / "other"),
    ):
        result = call(*arguments)
        assert result.code == 2
        assert re.search(rf"{tmp_path}(/run)? cannot be written to; [^\n]*\n$", result.err), result.err
