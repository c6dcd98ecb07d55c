"""Nothing of the user's is lost: only what is listed and as it was written is replaced, and only by what is whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.checkpoint_samples import content, make_checkpoint
from weight_edit import adapter, bake
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.rewrite.output import check_output, staged
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.low_disk import LowDiskSource
from weight_edit.recipe.recipe import Recipe, parse_recipe
from weight_edit.runs import run as running
from weight_edit.runs.run import run

CONTENT: dict[str, Any] = {
    "model": "organism",
    "find": {"target": "organism:refused", "baseline": "organism:answered", "n_train": 44, "n_validation": 12},
    "studies": [{"kind": "compare", "options": {"edits": {"ablated": {}}, "control": False}}],
    "edit": {},
    "verify": {"limit": 2},
    "evaluate": {"answered": "organism:answered:test", "limit": 4, "max_new_tokens": 8},
    "bounds": {"max_kl": 0.5},
}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**CONTENT, **changes})


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directions") / "d.safetensors"
    save_file({"direction": np.eye(1, 128, dtype=np.float32)}, path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, directions: Path) -> dict[str, Path]:
    """An output of every verb that writes a folder."""
    root = tmp_path_factory.mktemp("made")
    bake("organism", directions, root / "bake")
    adapter("organism", directions, root / "adapter")
    run(recipe(), root / "run")
    return {name: root / name for name in ("bake", "adapter", "run")}


def again(verb: str, out: Path, directions: Path) -> None:
    """The same verb once more, with `overwrite`."""
    if verb == "bake":
        bake("organism", directions, out, strength=0.5, overwrite=True)
    elif verb == "adapter":
        adapter("organism", directions, out, strength=0.5, overwrite=True)
    else:
        run(recipe(edit={"strength": 0.5}), out, overwrite=True)


def add(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("my notes on it\n")


def empty(path: Path) -> None:
    path.mkdir()


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def link(path: Path) -> None:
    other = path.parents[2] / f"copy of {path.name}"
    path.rename(other)
    path.symlink_to(other)


CHANGES: dict[str, list[tuple[Callable[[Path], None], str]]] = {
    "bake": [
        (add, "notes.txt"),
        (add, "mine/notes.txt"),
        (add, ".git/HEAD"),
        (add, "run.json"),
        (empty, "mine"),
        (change, "README.md"),
        (change, "model.safetensors"),
        (link, "config.json"),
    ],
    "adapter": [(add, "notes.txt"), (change, "adapter_config.json")],
    "run": [
        (add, "thesis.tex"),
        (add, "model/notes.txt"),
        (add, "studies/1-compare/mine.csv"),
        (add, "model.failed/weights"),
        (change, "answers/baseline.jsonl"),
        (change, "studies/1-compare/compare.csv"),
        (change, "directions.safetensors"),
        (change, "recipe.yaml"),
        (append, "log.txt"),
        (change, "model/model.safetensors"),
        (link, "log.txt"),
    ],
}


@pytest.mark.parametrize(
    ("verb", "change", "name"), [(verb, change, name) for verb, some in CHANGES.items() for change, name in some]
)
def test_what_is_the_users_is_named_and_stays(
    made: dict[str, Path], tmp_path: Path, directions: Path, verb: str, change: Callable[[Path], None], name: str
) -> None:
    out = tmp_path / "deep" / "out"
    shutil.copytree(made[verb], out)
    change(out / name)
    before = content(out)
    with pytest.raises(UsageError, match=r"weight_edit wrote it|written by weight_edit") as error:
        again(verb, out, directions)
    assert f"out/{name}" in str(error.value)
    assert content(out) == before
    assert os.listdir(tmp_path / "deep") == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("record", ["run.json", "weight_edit.json"])
@pytest.mark.parametrize("text", ["", "{}", '{"steps": {}}', '{"weight_edit": "1", "files": {"thesis.tex": 1}}', "[]"])
def test_a_folder_with_somebody_elses_record_is_not_ours(tmp_path: Path, record: str, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / record).write_text(text)
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError):
            check_output(tmp_path / "out", overwrite)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


def test_a_file_that_comes_while_the_new_output_is_made_stays(made: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made["bake"], out)

    def work() -> None:
        with staged(out, overwrite=True) as folder:
            (folder / "new").touch()
            (out / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match=r"notes\.txt is not written by weight_edit"):
        work()
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "model.safetensors").is_file()
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("verb", ["bake", "adapter", "run"])
def test_what_is_ours_is_replaced(made: dict[str, Path], tmp_path: Path, directions: Path, verb: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(made[verb], out)
    again(verb, out, directions)
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208
    manifest = json.loads((out / ("model" if verb == "run" else "") / "weight_edit.json").read_text())
    assert manifest["edit"]["steps"][0]["strength"] == 0.5
    if verb == "run":
        assert "replaces" not in json.loads((out / "run.json").read_text())
        # And once more: what has just been made is ours too.
        check_output(out, True)


def test_a_run_that_is_interrupted_leaves_the_one_before_it_and_goes_on(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made["run"], out)
    before = content(out)
    other = recipe(edit={"strength": 0.5})

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "verify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(other, out, overwrite=True)
    assert content(out) == before
    monkeypatch.setattr(running, "bake", lambda *args, **kwargs: pytest.fail("it is baked already"))
    run(other, out, resume=True)
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208
    assert json.loads((out / "run.json").read_text())["recipe"]["edit"]["strength"] == 0.5


def test_a_run_that_fails_leaves_the_one_before_it(made: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made["run"], out)
    before = content(out)
    strict = recipe(bounds={"max_kl": 1e-9})
    for _ in range(2):
        with pytest.raises(VerificationError, match=r"kept as model\.failed; .*out is as it was, and this run is in"):
            run(strict, out, overwrite=True, keep_failed=True)
        assert content(out) == before
        assert (tmp_path / "out.new/model.failed/config.json").is_file()
    (tmp_path / "out.new/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.new/notes\.txt is not written by weight_edit"):
        run(strict, out, overwrite=True)
    (tmp_path / "out.new/notes.txt").unlink()
    run(recipe(), out, resume=True)
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("put", ["folder", "link", "foreign run"])
def test_what_is_where_the_new_run_would_be_made_stays(made: dict[str, Path], tmp_path: Path, put: str) -> None:
    out, beside = tmp_path / "out", tmp_path / "out.new"
    shutil.copytree(made["run"], out)
    if put == "link":
        (tmp_path / "elsewhere").mkdir()
        beside.symlink_to("elsewhere")
    else:
        beside.mkdir()
        (beside / "notes.txt").write_text("mine")
    if put == "foreign run":
        shutil.copy(out / "run.json", beside)
    before = content(tmp_path)
    with pytest.raises(UsageError, match=r"out\.new (is a link|exists and is not empty)"):
        run(recipe(), out, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["", "answers", "studies", "model", "model.unverified"])
def test_a_resumed_run_writes_through_no_link(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    shutil.copytree(made["run"], out)
    if (out / name).exists():
        (out / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (out / name).symlink_to(elsewhere)
    before = content(elsewhere)
    # Everything is made anew, under another dtype.
    with pytest.raises(UsageError, match="is a link"):
        run(recipe(dtype="float32"), out, resume=True)
    assert {key: data for key, data in content(elsewhere).items() if key in before} == before
    assert set(content(elsewhere)) == set(before)


def test_a_resumed_run_replaces_nothing_that_was_changed(made: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made["run"], out)
    (out / "notes.txt").write_text("mine")
    change(out / "answers/baseline.jsonl")
    noted = (out / "answers/baseline.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"baseline\.jsonl is not as weight_edit wrote it"):
        run(recipe(dtype="float32"), out, resume=True)
    assert (out / "answers/baseline.jsonl").read_bytes() == noted
    (out / "answers/baseline.jsonl").unlink()
    run(recipe(dtype="float32"), out, resume=True)
    # What nobody replaces is nobody's concern.
    assert (out / "notes.txt").read_text() == "mine"


def test_the_model_of_an_earlier_recipe_stays_until_the_new_one_is_judged(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made["run"], out)
    before = content(out / "model")

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(edit={"strength": 0.5}), out, resume=True)
    assert content(out / "model") == before


@pytest.mark.parametrize("inside", ["files", "old", "files/sub", "files/a"])
@pytest.mark.parametrize("resume", [False, True])
def test_an_unfinished_bake_with_a_planted_link_writes_and_removes_nothing_elsewhere(
    tmp_path: Path, directions: Path, inside: str, resume: bool
) -> None:
    from weight_edit.baking import writing

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        original = writing.attempted
        patch.setattr(writing, "attempted", lambda *a, **k: keys.append(k["key"]) or original(*a, **k))
        bake("organism", directions, tmp_path / "other")
    attempt = Attempt.begin(tmp_path / "out", keys[0])
    place = attempt.folder / inside
    if place.exists():
        place.rmdir()
    place.symlink_to(elsewhere if inside != "files/a" else elsewhere / "precious")
    attempt.release()
    bake("organism", directions, tmp_path / "out", resume=resume)
    assert content(elsewhere) == {"precious": b"precious"}
    assert content(tmp_path / "out") == content(tmp_path / "other")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_a_users_folder_that_is_named_like_an_unfinished_bake_stays(tmp_path: Path, directions: Path) -> None:
    for number, journal in enumerate(("Dear diary\n", '{"key": 1}\n', '{"key": "k"}\n')):
        mine = tmp_path / f".out.partial-00000000000{number}"
        mine.mkdir()
        (mine / "journal").write_text(journal)
        (mine / "chapter.tex").write_text("precious")
    for resume in (False, True):
        bake("organism", directions, tmp_path / "out", overwrite=resume, resume=resume)
    assert len(list(tmp_path.glob(".out.partial-*/chapter.tex"))) == 3


@pytest.mark.parametrize("planted", ["folder", "bookkeeping", "mark"])
def test_a_low_disk_bake_downloads_into_no_linked_folder(tmp_path: Path, hub: Any, planted: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / ".out.download"
    if planted == "folder":
        place.symlink_to(elsewhere)
    elif planted == "bookkeeping":
        (elsewhere / "weight_edit").touch()
        place.mkdir()
        (place / ".cache").symlink_to(elsewhere)
    else:
        (place / ".cache").mkdir(parents=True)
        (place / ".cache/weight_edit").symlink_to(elsewhere / "made")
    before = content(elsewhere)
    hub.add("org/model", make_checkpoint(tmp_path / "model"))
    with pytest.raises(UsageError, match="link"):
        LowDiskSource.open("org/model", place)
    assert content(elsewhere) == before
    assert elsewhere.is_dir()
