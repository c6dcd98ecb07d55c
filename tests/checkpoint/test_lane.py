"""A lane's files are what was written into them, by whatever way they reach the disk; no bytes depend on that way."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from tests.helpers.checkpoint_samples import content, make_checkpoint
from tests.helpers.edit_samples import adding, along, random_map
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.rewrite import lane
from weight_edit.checkpoint.rewrite.lane import BUFFERS, Lane, LaneFile
from weight_edit.checkpoint.rewrite.output import attempted, staged
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError

BLOCK = 4096
BUFFER = 4 * BLOCK
ALL = BUFFERS * BUFFER
EDGES = (0, BLOCK, BUFFER, 2 * BUFFER, ALL, ALL + BUFFER)
SIZES = sorted({max(0, edge + off) for edge in EDGES for off in (-1, 0, 1, BLOCK + 7)})
WAYS = ("buffered", "direct", "refused by open", "refused by pwrite", "short writes")


@pytest.fixture
def small_buffers(monkeypatch):
    """Buffers of four blocks, so that files of a few kB go around all of them."""
    monkeypatch.setattr(lane, "BUFFER", BUFFER)


class Disk:
    """`os` as the lane sees it, with a disk that takes less than all at once.

    Attributes:
        direct: how many direct writes were tried.
    """

    def __init__(self, way: str) -> None:
        self._way, self.direct = way, 0

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int) -> int:
        if self._way == "refused by open" and flags & os.O_DIRECT:
            # As some file systems do: the file is there all the same.
            os.close(os.open(path, flags & ~os.O_DIRECT, mode))
            raise OSError(errno.EINVAL, "no direct writes")
        return os.open(path, flags, mode)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        direct = bool(lane.fcntl.fcntl(descriptor, lane.fcntl.F_GETFL) & os.O_DIRECT)
        self.direct += direct
        if self._way == "refused by pwrite" and direct:
            raise OSError(errno.EINVAL, "no direct writes")
        if self._way == "short writes":
            # First whole blocks, then not even those.
            data = data[: BLOCK if offset < BUFFER else 1000]
        return os.pwrite(descriptor, data, offset)


@pytest.fixture(params=WAYS)
def disk(request, monkeypatch, small_buffers) -> Disk:
    found = Disk(request.param)
    monkeypatch.setattr(lane, "os", found)
    monkeypatch.setattr(lane, "_DIRECT_FROM", 1 << 40 if request.param == "buffered" else 0)
    return found


def pieces(data: bytes, seed: int) -> list[bytes]:
    """The same bytes in pieces of any length, empty ones and whole buffers among them."""
    rng = np.random.default_rng(seed)
    found, at = [], 0
    while at < len(data):
        length = int(rng.choice([0, 1, 100, BLOCK, BUFFER, int(rng.integers(0, 2 * BUFFER))]))
        found.append(data[at : at + length])
        at += length
    return found


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_what_was_written(tmp_path, disk, size):
    data = np.random.default_rng(size).bytes(size)
    with Lane() as one, LaneFile(one, tmp_path / "deep" / "file", size) as file:
        for piece in pieces(data, size):
            file.write(memoryview(piece))
        record = file.finish("edited")
    assert (tmp_path / "deep" / "file").read_bytes() == data
    assert (record.sha256, record.size, record.origin) == (hashlib.sha256(data).hexdigest(), size, "edited")


def test_large_files_do_go_past_the_page_cache_where_that_is_possible(tmp_path, monkeypatch, small_buffers):
    found = Disk("direct")
    monkeypatch.setattr(lane, "os", found)
    monkeypatch.setattr(lane, "_DIRECT_FROM", 0)
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system has no direct writes")
    with Lane() as one, LaneFile(one, tmp_path / "file", 3 * BUFFER + 5) as file:
        file.write(memoryview(bytes(3 * BUFFER + 5)))
        file.finish("copied")
    assert found.direct == 3


def test_room_can_be_filled_in_place_and_is_never_empty(tmp_path, disk):
    data = np.random.default_rng(0).bytes(ALL + 3 * BLOCK + 11)
    with Lane() as one, LaneFile(one, tmp_path / "file", len(data)) as file:
        done = 0
        while done < len(data):
            room = file.room()
            assert len(room) > 0
            count = min(len(room), len(data) - done, 5000)
            room[:count] = data[done : done + count]
            file.filled(count)
            done += count
            assert file.size == done
        file.finish("edited")
    assert (tmp_path / "file").read_bytes() == data


def test_without_a_path_it_only_hashes(tmp_path, disk):
    data = bytes(range(256)) * 300
    with Lane() as one, LaneFile(one, None, len(data)) as file:
        file.write(memoryview(data))
        assert file.finish("linked").sha256 == hashlib.sha256(data).hexdigest()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EINVAL])
def test_an_error_of_the_disk_thread_surfaces_and_the_lane_can_be_used_again(
    tmp_path, monkeypatch, small_buffers, number
):
    found = Disk("buffered")
    monkeypatch.setattr(lane, "os", found)
    monkeypatch.setattr(lane, "_DIRECT_FROM", 1 << 40)
    data = np.random.default_rng(1).bytes(ALL * 2)

    def failing(descriptor: int, piece: memoryview, offset: int) -> int:
        raise OSError(number, "no")

    def write(one: Lane, name: str) -> None:
        with LaneFile(one, tmp_path / name, len(data)) as file:
            file.write(memoryview(data))
            file.finish("edited")

    with Lane() as one:
        with monkeypatch.context() as patch:
            patch.setattr(found, "pwrite", failing, raising=False)
            with pytest.raises(OSError) as raised:
                write(one, "bad")
        assert raised.value.errno == number
        write(one, "good")
    assert (tmp_path / "good").read_bytes() == data


def test_an_error_of_the_last_piece_surfaces_in_finish(tmp_path, monkeypatch):
    found = Disk("buffered")

    def failing(descriptor: int, piece: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(found, "pwrite", failing, raising=False)
    monkeypatch.setattr(lane, "os", found)

    def write() -> None:
        with Lane() as one, LaneFile(one, tmp_path / "file", 3) as file:
            file.write(memoryview(b"abc"))
            with pytest.raises(OSError, match="full"):
                file.finish("edited")
            raise KeyError("what came of it")

    with pytest.raises(KeyError):
        write()


def test_an_existing_file_is_refused_and_kept(tmp_path, disk):
    (tmp_path / "file").write_bytes(b"precious")
    with Lane() as one, pytest.raises(FileExistsError):
        LaneFile(one, tmp_path / "file", 3)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_descriptors_are_closed_whatever_happens(tmp_path, disk):
    def write(one: Lane, number: int) -> None:
        with LaneFile(one, tmp_path / str(number), 10 * BUFFER) as file:
            file.write(memoryview(bytes(3 * BUFFER)))
            if number % 2:
                raise KeyError(number)
            file.finish("edited")

    before = len(list(Path("/proc/self/fd").iterdir()))
    with Lane() as one:
        for number in range(6):
            try:
                write(one, number)
            except KeyError:
                assert number % 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Checkpoint:
    """Every dtype, vectors as rows and columns, tensors larger than a tile, four shards."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for name, shape in (("down", (256, 700)), ("embed", (900, 256)), ("experts", (3, 256, 600))):
            tensors[f"{dtype}.{name}"] = torch.randn(shape, generator=generator).to(dtype)
        tensors[f"{dtype}.bias"] = torch.randn(256, generator=generator).to(dtype)
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("lane") / "source", tensors, shards=4))


def written(source: Checkpoint, out: Path, rank: int, lanes: int) -> dict[str, bytes]:
    """All bytes that a rewrite gives."""
    axes = {"down": 0, "embed": 1, "experts": 1, "bias": 0}
    edits = []
    for number, name in enumerate(source.tensors):
        kind = name.rpartition(".")[2]
        if kind in axes:
            edits.append(along(source, name, axes[kind], random_map(256, rank, number, constant=kind == "bias")))
    assert len(edits) == 16
    out.mkdir()
    write_checkpoint(plan_rewrite(source, edits), out, lanes=lanes)
    return content(out)


@pytest.mark.parametrize("rank", [1, 17])
def test_bytes_do_not_depend_on_lanes_buffers_direct_writes_or_blas_threads(tmp_path, monkeypatch, source, rank):
    reference = written(source, tmp_path / "reference", rank, 1)
    changed = [name for name, data in reference.items() if data != (source.path / name).read_bytes()]
    assert sorted(changed) == sorted(source.shards)
    for lanes, buffer, direct, threads in (
        (2, 4 << 20, 1 << 40, 4),
        (4, BLOCK, 0, 1),
        (1, 3 * BLOCK, 0, 4),
        (4, 1 << 20, 0, 2),
    ):
        monkeypatch.setattr(lane, "BUFFER", buffer)
        monkeypatch.setattr(lane, "_DIRECT_FROM", direct)
        with threadpool_limits(threads, user_api="blas"):
            found = written(source, tmp_path / f"{lanes}-{buffer}", rank, lanes)
        assert found == reference


def test_a_second_ctrl_c_waits_for_the_lanes(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    plan = plan_rewrite(source, adding(source, ["model.embed.weight"]))
    inside, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(20)
        fsync(descriptor)

    def pressed(*_, **__):
        inside.wait(20)
        raise KeyboardInterrupt

    presses = [2]
    join = threading.Thread.join

    def impatient(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name.startswith("lane") and threading.current_thread() is threading.main_thread() and presses[0]:
            presses[0] -= 1
            if not presses[0]:
                threading.Timer(0.3, go_on.set).start()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr("weight_edit.checkpoint.rewrite.rewrite.wait", pressed)
    monkeypatch.setattr(threading.Thread, "join", impatient)
    with pytest.raises(KeyboardInterrupt), attempted(tmp_path / "out", key="job") as attempt:
        write_checkpoint(plan, attempt.files, done=attempt.note)
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("lane")]
    go_on.set()
    assert alive == []


@pytest.mark.parametrize(
    "size",
    [0, 1, 4095, 4096, 4097, lane.BUFFER - 1, lane.BUFFER, lane.BUFFER + 1, 4 * lane.BUFFER, 5 * lane.BUFFER + 4097],
)
def test_lane_writes_what_it_is_given_at_every_edge(tmp_path, monkeypatch, size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    monkeypatch.setattr(lane, "_DIRECT_FROM", 0)
    with Lane() as one:
        for number in range(2):
            with LaneFile(one, tmp_path / f"{number}", size) as file:
                file.write(data[: size // 3].data)
                file.write(data[size // 3 :].data)
                record = file.finish("copied")
            assert (tmp_path / f"{number}").read_bytes() == data.tobytes()
            assert record.sha256 == hashlib.sha256(data).hexdigest()
            assert record.size == size


def test_short_and_refused_direct_writes_go_on_where_they_stopped(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, 3 * lane.BUFFER + 777, np.uint8)
    pwrite, flags = os.pwrite, []

    def odd(descriptor, piece, offset):
        direct = bool(lane.fcntl.fcntl(descriptor, lane.fcntl.F_GETFL) & os.O_DIRECT)
        flags.append(direct)
        if direct and offset >= lane.BUFFER:
            raise OSError(errno.EINVAL, "no")
        return pwrite(descriptor, piece[: max(1, len(piece) // 2)] if not direct else piece, offset)

    monkeypatch.setattr(lane, "_DIRECT_FROM", 0)
    monkeypatch.setattr(os, "pwrite", odd)
    with Lane() as one, LaneFile(one, tmp_path / "x", data.size) as file:
        file.write(data.data)
        file.finish("copied")
    assert (tmp_path / "x").read_bytes() == data.tobytes()


def test_a_disk_that_fails_in_a_lane_is_told_and_nothing_hangs(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source", shards=3))
    calls = iter(range(1000))
    pwrite = os.pwrite

    def full(*arguments):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    before = threading.active_count()
    with pytest.raises(UsageError, match="disk is full"), staged(tmp_path / "out") as folder:
        rewrite(source, folder, adding(source, ["model.embed.weight"]))
    assert threading.active_count() == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
