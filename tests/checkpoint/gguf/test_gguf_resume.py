"""A rewrite of one long file that is killed goes on from the last noted end of a piece, and gives the same bytes."""

import hashlib
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.checkpoint_samples import content, flip
from tests.helpers.gguf_files import Stored, mixed_entries, write_gguf
from tests.helpers.killed_processes import Workers
from weight_edit.checkpoint.rewrite import rewrite as rewriting
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.rewrite.output import attempted
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult, write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain

PIECES = 12
NUMBERS = 150_001
"""Of each tensor: more than half a buffer, and no multiple of anything."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    rng = np.random.default_rng(0)
    tensors = {f"t.{number}": Stored.of(rng.standard_normal(NUMBERS)) for number in range(2 * PIECES)}
    return Checkpoint.open(write_gguf(tmp_path_factory.mktemp("base") / "m.gguf", mixed_entries(), tensors))


def wanted(source: Checkpoint) -> dict[str, bytes]:
    """What comes of every second tensor with one added to each number."""
    raw = bytearray((source.path / "m.gguf").read_bytes())
    for number in range(PIECES):
        info = source.tensors[f"t.{2 * number}"]
        numbers = np.frombuffer(bytes(raw[info.begin : info.end]), "<f4").astype(np.float64) + 1.0
        raw[info.begin : info.end] = numbers.astype("<f4").tobytes()
    return {"m.gguf": bytes(raw)}


class Plus:
    """An affine map that adds one to each number, each a vector of its own."""

    left = right = np.zeros((1, 1))
    constant = np.ones(1)


def written(source: Checkpoint, out: Path, *, resume: bool = True, every: int = 1 << 20) -> RewriteResult:
    """The rewrite into `out`, or what is left to do of it."""
    edits = []
    for number in range(PIECES):
        storage = Plain(f"t.{2 * number}", "F32", (NUMBERS, 1), 1)
        storage.parts = {f"t.{2 * number}": ("F32", (NUMBERS,))}
        edits.append(EditedTensor(source=storage, target=storage, map=Plus(), along_rows=False))
    plan = plan_rewrite(source, edits)
    rewriting.NOTED_EVERY = every
    with attempted(out, key=plan.key, resume=resume) as attempt:
        return write_checkpoint(
            plan,
            attempt.files,
            finished=attempt.finished,
            begun=attempt.begun,
            losses=attempt.losses,
            done=attempt.note,
            note_begun=attempt.note_begun,
        )


@pytest.fixture(autouse=True)
def _noted_as_before() -> Any:
    before = rewriting.NOTED_EVERY
    yield
    rewriting.NOTED_EVERY = before


def stopped(source: Checkpoint, out: Path, notes: int, **options: Any) -> list[dict[str, Any]]:
    """A rewrite stopped by Ctrl-C after some notes; its journal."""
    note, left = Attempt.note_begun, [notes]

    def noting(self: Attempt, *what: Any) -> None:
        note(self, *what)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attempt, "note_begun", noting)
        with pytest.raises(KeyboardInterrupt):
            written(source, out, **options)
    journal = next(out.parent.glob(".out.partial-*/journal")).read_text().splitlines()
    return [json.loads(line) for line in journal[1:]]


def test_a_whole_run_notes_nothing_of_short_files(tmp_path: Path, source: Checkpoint) -> None:
    result = written(source, tmp_path / "out", every=1 << 40)
    assert content(tmp_path / "out") == wanted(source)
    assert result.bytes_kept == 0


@pytest.mark.parametrize("direct", [False, True])
def test_it_goes_on_behind_the_last_note(
    tmp_path: Path, source: Checkpoint, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if direct:
        monkeypatch.setattr("weight_edit.checkpoint.rewrite.lane._DIRECT_FROM", 0)
    first = stopped(source, tmp_path / "out", 3)
    assert [entry["begun"] for entry in first] == ["m.gguf"] * 3
    assert all(one["size"] + (1 << 20) <= two["size"] for one, two in pairwise(first))
    second = stopped(source, tmp_path / "out", 2)
    assert second[:3] == first
    assert len(second) == 5
    result = written(source, tmp_path / "out")
    assert result.bytes_kept == second[-1]["size"] > first[-1]["size"]
    assert result.bytes_kept + result.bytes_copied + result.bytes_edited == source.size
    assert content(tmp_path) == {f"out/{name}": raw for name, raw in wanted(source).items()}


def damage(how: str) -> Callable[[Path, int], None]:
    def happen(file: Path, size: int) -> None:
        if how == "flipped":
            flip(file, size - 1)
        elif how == "cut":
            os.truncate(file, size - 1)
        elif how == "longer":
            with file.open("ab") as end:
                end.write(bytes(1 << 24))
        else:
            file.unlink()

    return happen


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "longer"])
def test_what_was_damaged_meanwhile_is_made_anew(tmp_path: Path, source: Checkpoint, how: str) -> None:
    size = stopped(source, tmp_path / "out", 3)[-1]["size"]
    damage(how)(next(tmp_path.glob(".out.partial-*/files/m.gguf")), size)
    result = written(source, tmp_path / "out")
    assert result.bytes_kept == (size if how == "longer" else 0)
    assert content(tmp_path) == {f"out/{name}": raw for name, raw in wanted(source).items()}


@pytest.mark.parametrize("change", [{"size": 100_000}, {"sha256": "0" * 64}, {"size": -1}, {"losses": 3}])
def test_a_journal_that_says_something_else(tmp_path: Path, source: Checkpoint, change: dict[str, Any]) -> None:
    stopped(source, tmp_path / "out", 2)
    journal = next(tmp_path.glob(".out.partial-*/journal"))
    *lines, last = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines, json.dumps({**json.loads(last), **change})]) + "\n")
    assert written(source, tmp_path / "out").bytes_kept == 0
    assert content(tmp_path) == {f"out/{name}": raw for name, raw in wanted(source).items()}


def test_a_size_at_no_end_of_a_piece_is_not_gone_on_with(tmp_path: Path, source: Checkpoint) -> None:
    stopped(source, tmp_path / "out", 2)
    journal = next(tmp_path.glob(".out.partial-*/journal"))
    raw = next(tmp_path.glob(".out.partial-*/files/m.gguf")).read_bytes()[:100_000]
    *lines, last = journal.read_text().splitlines()
    entry = {**json.loads(last), "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    journal.write_text("\n".join([*lines, json.dumps(entry)]) + "\n")
    assert written(source, tmp_path / "out").bytes_kept == 0
    assert content(tmp_path / "out") == wanted(source)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_one_that_nobody_disturbed(tmp_path: Path, source: Checkpoint) -> None:
    worker = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_gguf_resume import Checkpoint, content, wanted, written
from weight_edit.checkpoint.source.reading import Files
read = Files.read
def slowly(self, *which):
    time.sleep(0.01)
    read(self, *which)
Files.read = slowly
source = Checkpoint.open({str(source.path / "m.gguf")!r})
def main(where):
    out = Path(where) / "out"
    kept = None if out.exists() else written(source, out).bytes_kept
    return [kept, content(out) == wanted(source), sorted(path.name for path in Path(where).iterdir())]
"""
    places = []
    for number in range(40):
        places.append(tmp_path / str(number))
        places[-1].mkdir()
    with Workers(worker, tmp_path / "workers") as workers:
        found = workers.killed(places, 20, longest=0.5)
    assert found
    assert all(same and names == ["out"] for _, same, names in found)
    assert any(kept for kept, _, _ in found)
