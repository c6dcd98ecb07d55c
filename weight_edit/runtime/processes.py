"""Several processes that ask a model together: each takes a share of the prompts, and all get all results.

Every process runs the same program on the same inputs. A question to the model is divided (`divided`): each process
runs its share of the prompts, the results are exchanged, and all go on with the same numbers, so that they take the
same decisions. The first process alone reads and writes files, asks judges and speaks (`from_first`, `writes`).

Without `together` nothing is divided, whatever started the process, so that a program of one's own, which may use this
package in one of its processes alone, never waits for the others.
"""

import pickle
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from weight_edit.errors import ProcessError, UsageError, WeightEditError, first_line
from weight_edit.utils.launch import Launched, launched

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

JOIN = 600.0
"""Seconds in which all processes must have come."""

BEAT = 5.0
"""Seconds between two signs of life."""

SILENCE = 90.0
"""Seconds without a sign of life after which a process is taken for dead: a machine without power closes nothing."""

_POLL = 0.0005
"""Seconds between two looks whether the others have come, at first; a wait that lasts looks ever less often."""

_LONGEST_POLL = 0.05

_ALIGNED = 16
"""Tensors begin at multiples of so many bytes in what is sent."""


@dataclass(kw_only=True)
class Processes:
    """The processes of a run, connected.

    Attributes:
        place: which of them this one is.
        prompts: how many prompts each has run by now, over all questions.
    """

    place: Launched
    prompts: list[int]
    _group: Any = field(repr=False)
    _store: Any = field(repr=False)
    _life: "_Life | None" = field(default=None, repr=False)
    _asked: int = field(default=0, repr=False)

    def exchanged(self, mine: T, what: str) -> list[T]:
        """What each process gives, in their order, on every process.

        Tensors travel as the bytes they are, and arrive on this process's device where they were on another's.

        Args:
            what: all processes say the same here; if not, they have gone apart.

        Raises:
            ProcessError: a process has ended or went another way.
        """
        import torch
        import torch.distributed as dist

        payload = _packed(mine)
        sizes = self._headers(what, len(payload))
        largest = max(sizes)
        padded = torch.zeros(largest, dtype=torch.uint8)
        padded[: len(payload)] = payload
        parts = [torch.empty(largest, dtype=torch.uint8) for _ in sizes]
        self._wait(dist.all_gather(parts, padded, group=self._group, async_op=True))
        # Its own result as the others get it: what is gathered is the same on all.
        return [_unpacked(part[:size]) for part, size in zip(parts, sizes, strict=True)]

    def from_first(self, first: T | None, what: str) -> T:
        """What the first process gives, on every process.

        Args:
            first: on the first process, what it gives.
            what: as in `exchanged`.

        Raises:
            ProcessError: as `exchanged`.
        """
        import torch
        import torch.distributed as dist

        payload = _packed(first) if self.place.first else torch.empty(0, dtype=torch.uint8)
        size = self._headers(what, len(payload))[0]
        given = payload if self.place.first else torch.empty(size, dtype=torch.uint8)
        self._wait(dist.broadcast(given, src=0, group=self._group, async_op=True))
        found: T = _unpacked(given)
        return found

    def share(self, costs: Sequence[float]) -> list[list[int]]:
        """The items that each process takes, by its number: dealt out by cost, there and back, so all do as much."""
        shares: list[list[int]] = [[] for _ in range(self.place.count)]
        order = sorted(range(len(costs)), key=lambda item: (-costs[item], item))
        turn = [*range(self.place.count), *reversed(range(self.place.count))]
        for number, item in enumerate(order):
            shares[turn[number % len(turn)]].append(item)
        return [sorted(some) for some in shares]

    def told(self) -> None:
        """Note that this process says what ended the run."""
        self._store.set("told", "yes")

    def may_tell(self, patience: float) -> bool:
        """Whether this process, which is not the first, is to say what ended the run, since no other one has.

        Args:
            patience: seconds in which another may still do it.
        """
        deadline = time.monotonic() + patience
        try:
            while time.monotonic() < deadline:
                if self._store.check(["told"]):
                    return False
                time.sleep(0.1)
            return bool(self._store.add("telling", 1) == 1)
        except (RuntimeError, OSError):
            # The store has gone with the process or the machine that kept it.
            return True

    def may_trace(self) -> bool:
        """Whether this process is the one that shows the traceback of a mistake, which all may make."""
        try:
            return bool(self._store.add("traced", 1) == 1)
        except (RuntimeError, OSError):
            return True

    def leave(self, reason: BaseException | None = None) -> None:
        """Disconnect.

        Args:
            reason: what the others are to say of it, where it is an error that they may not meet.
        """
        if reason is not None:
            with suppress(RuntimeError, OSError):
                self._store.set("reason", f"process {self.place.rank}: {first_line(reason)}")
        if self._life is not None:
            self._life.stop()

    def _headers(self, what: str, size: int) -> list[int]:
        """How many bytes each process is about to send, once all are at the same question."""
        import torch
        import torch.distributed as dist

        self._asked += 1
        mark = zlib.crc32(f"{self._asked} {what}".encode())
        mine = torch.tensor([mark, size])
        headers = [torch.empty_like(mine) for _ in range(self.place.count)]
        self._wait(dist.all_gather(headers, mine, group=self._group, async_op=True))
        if any(int(header[0]) != mark for header in headers):
            raise ProcessError(
                f"the {self.place.count} processes went apart at '{what}': they must be given the same arguments, and "
                "have the same versions and files of the model"
            )
        return [int(header[1]) for header in headers]

    def _wait(self, work: Any) -> None:
        """Wait for an exchange in short steps, so that signals are heard and a dead machine is noticed."""
        pause = _POLL
        while not work.is_completed():
            time.sleep(pause)
            pause = min(_LONGEST_POLL, 1.05 * pause)
            if self._life is not None and (silent := self._life.silent()) is not None:
                raise ProcessError(f"process {silent} of {self.place.count} gave no sign of life for {SILENCE:.0f} s")
        try:
            work.wait()
        except RuntimeError as error:
            raise ProcessError(
                f"one of the {self.place.count} processes of this run has ended{self._reason}"
            ) from error

    @property
    def _reason(self) -> str:
        try:
            return f" ({self._store.get('reason').decode()})" if self._store.check(["reason"]) else ""
        except (RuntimeError, OSError):
            return ""


class _Life:
    """Signs of life of this process, given in a thread, and those of the others."""

    def __init__(self, place: Launched, store: Any) -> None:
        self._place, self._store = place, store
        self._ended = threading.Event()
        self._heard: dict[int, tuple[bytes, float]] = {}
        self._looked = time.monotonic()
        # A connection of its own: the other one may be in use for long.
        self._thread = threading.Thread(target=self._beat, args=(store.clone(),), name="life", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        # It may be waiting for a store whose machine is gone.
        self._thread.join(timeout=1)

    def silent(self) -> int | None:
        """The number of a process that gave no sign for too long; None where all did."""
        now = time.monotonic()
        if now - self._looked < BEAT:
            return None
        self._looked = now
        others = [rank for rank in range(self._place.count) if rank != self._place.rank]
        try:
            signs = self._store.multi_get([f"life/{rank}" for rank in others])
        except (RuntimeError, OSError) as error:
            raise ProcessError("the machine of the first process cannot be reached any more") from error
        for rank, sign in zip(others, signs, strict=True):
            if self._heard.get(rank, (None, 0.0))[0] != sign:
                self._heard[rank] = (sign, now)
        return next((rank for rank, (_, at) in self._heard.items() if now - at > SILENCE), None)

    def _beat(self, store: Any) -> None:
        number = 0
        while not self._ended.wait(BEAT):
            number += 1
            try:
                store.set(f"life/{self._place.rank}", str(number))
            except (RuntimeError, OSError):
                # Whoever waits for the others notices it and says so.
                return


_processes: Processes | None = None
_last: Processes | None = None
_alone: ContextVar[bool] = ContextVar("alone", default=False)


def current() -> Processes | None:
    """The processes that share questions now; None where this one asks alone."""
    return None if _alone.get() else _processes


def joined() -> Processes | None:
    """The processes of the run, also while this one asks alone."""
    return _processes


def last_joined() -> Processes | None:
    """The processes of the run, also once this one has left them."""
    return _last


def writes() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return _processes is None or _processes.place.first


@contextmanager
def alone() -> Iterator[None]:
    """Within the context, this process asks the model by itself."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextmanager
def together() -> Iterator[Processes | None]:
    """Within the context, the processes that a launcher started share questions; nothing happens where it is one.

    All of them must enter it, call the same functions with the same arguments, and leave it.

    Raises:
        ProcessError: not all came in time.
    """
    global _processes, _last
    place = launched()
    if not place.several or _processes is not None:
        yield current()
        return
    import torch.distributed as dist

    own = not dist.is_initialized()
    found = _processes = _last = _connected(place)
    reason: BaseException | None = None
    try:
        yield found
    except ProcessError:
        raise
    except Exception as error:
        reason = error
        raise
    finally:
        _processes = None
        found.leave(reason)
        if own:
            dist.destroy_process_group()


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What a process gives: a value, or the user's error that it met."""

    value: T | None = None
    error: WeightEditError | None = None

    @classmethod
    def of(cls, make: Callable[[], T]) -> "_Outcome[T]":
        try:
            with alone():
                return cls(value=make())
        except ProcessError:
            raise
        except WeightEditError as error:
            return cls(error=error)


def from_first(make: Callable[[], T], what: str) -> T:
    """What `make` gives on the first process, which alone calls it; an error of the user's is raised on all.

    Args:
        what: names it; the same on all processes.
    """
    processes = current()
    if processes is None:
        return make()
    outcome = processes.from_first(_Outcome.of(make) if processes.place.first else None, what)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value]


def agreed(value: T, what: str) -> T:
    """The first process's value, on all: what several machines compute may differ in the last bits."""
    processes = current()
    return value if processes is None else processes.from_first(value, what)


def pooled(run: Callable[[], T], what: str) -> list[T]:
    """What `run` gives on each process, in their order, on all of them.

    Args:
        run: does this process's share, alone.
        what: names the question; the same on all processes.

    Raises:
        WeightEditError: as `run`, of whichever process met it, on all of them.
        ProcessError: a process has ended.
    """
    processes = current()
    if processes is None:
        return [run()]
    found = []
    for outcome in processes.exchanged(_Outcome.of(run), what):
        if outcome.error is not None:
            raise outcome.error
        found.append(outcome.value)
    return found  # type: ignore[return-value]


def divided(costs: Sequence[float], ask: Callable[[Sequence[int]], Sequence[T]], what: str) -> list[T]:
    """The results of all items in order, each item asked for by one process.

    Args:
        costs: of each item, such as the tokens of a prompt: they are dealt out so that every process has as much to do.
        ask: gives the results of the items of these numbers, in their order; it is not called for none.
        what: names the question; the same on all processes.

    Raises:
        WeightEditError: as `ask`, of whichever process met it, on all of them.
        ProcessError: a process has ended.
    """
    processes = current()
    if processes is None:
        return list(ask(range(len(costs))))
    shares = processes.share(costs)
    mine = shares[processes.place.rank]
    parts = pooled(lambda: list(ask(mine)) if mine else [], f"{what} of {len(costs)}")
    found: dict[int, T] = {}
    for rank, (share, part) in enumerate(zip(shares, parts, strict=True)):
        found |= dict(zip(share, part, strict=True))
        processes.prompts[rank] += len(share)
    return [found[item] for item in range(len(costs))]


@contextmanager
def first_on_machine() -> Iterator[None]:
    """A block that the first process of each machine runs before the others: what it fetches, they find there."""
    processes = current()
    if processes is None:
        yield
        return
    first = processes.place.local_rank == 0
    if not first:
        processes.exchanged(None, "files on each machine")
    with alone():
        try:
            yield
        finally:
            if first:
                processes.exchanged(None, "files on each machine")


def device_of_process(device: str | None) -> str | None:
    """The device of this process, of those on its machine, where `device` leaves open which.

    Raises:
        UsageError: "auto" would give every process on this machine all devices, and a device's number the same one.
    """
    place = None if _processes is None else _processes.place
    if place is None or place.local_count < 2:
        return device
    if device == "auto":
        raise UsageError(
            f"device 'auto' spreads the model over all devices of a machine, and {place.local_count} processes run on "
            "this one; start one on each machine, or leave `device` out",
            option="device",
        )
    import torch

    own = f"cuda:{place.local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else None
    if own is not None and device in (None, "cuda"):
        return own
    if device is not None and device.startswith("cuda:") and device != own:
        raise UsageError(
            f"device '{device}' would be that of all {place.local_count} processes on this machine; leave `device` "
            "out, and each has its own (CUDA_VISIBLE_DEVICES says which there are)",
            option="device",
        )
    return device


def memory_share() -> int:
    """How many processes share this machine's memory."""
    return 1 if _processes is None else max(1, _processes.place.local_count)


def facts() -> dict[str, Any]:
    """The number of processes and the prompts that each ran, JSON values; empty where there is one."""
    if _processes is None:
        return {}
    return {"processes": {"count": _processes.place.count, "prompts": list(_processes.prompts)}}


def _connected(place: Launched) -> Processes:
    """The processes, once all have come.

    Raises:
        ProcessError: they have not in time.
    """
    late = (
        f"not all of {place.count} processes came within {JOIN / 60:.0f} min; start as many, or none with a launcher "
        "(unset WORLD_SIZE)"
    )
    import torch.distributed as dist

    wait = timedelta(seconds=JOIN)
    try:
        root, _, _ = next(dist.rendezvous("env://", place.rank, place.count, timeout=wait))
    except (RuntimeError, OSError) as error:
        raise ProcessError(late) from error
    store = dist.PrefixStore("weight_edit", root)
    store.set(f"life/{place.rank}", "0")
    deadline = time.monotonic() + JOIN
    while not store.check([f"life/{rank}" for rank in range(place.count)]):
        if time.monotonic() > deadline:
            raise ProcessError(late)
        time.sleep(0.05)
    # Who waits for long is not lost: signs of life tell that, not a limit on a question's time.
    forever = timedelta(days=30)
    if dist.is_initialized():
        group = dist.new_group(backend="gloo", timeout=forever)
    else:
        dist.init_process_group(
            "gloo", store=dist.PrefixStore("group", store), rank=place.rank, world_size=place.count, timeout=forever
        )
        group = dist.group.WORLD
    life = _Life(place, store)
    return Processes(place=place, prompts=[0] * place.count, _group=group, _store=store, _life=life)


class _Pickler(pickle.Pickler):
    """A pickler that leaves the numbers of tensors out, to be sent as they are."""

    def reducer_override(self, obj: Any) -> Any:
        import torch

        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        plain = obj.detach().cpu().contiguous()
        raw = plain.flatten().view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8)
        return _tensor, (pickle.PickleBuffer(raw.numpy().data), plain.dtype, tuple(plain.shape), str(obj.device))


def _tensor(raw: Any, dtype: "torch.dtype", shape: tuple[int, ...], device: str) -> "Tensor":
    import torch

    if 0 in shape:
        found = torch.empty(shape, dtype=dtype)
    else:
        # A copy: what is kept of many is not held by what was received with it.
        found = torch.frombuffer(raw, dtype=torch.uint8).clone().view(dtype).reshape(shape)
    # What another process of this machine has on its GPU comes to this one's.
    kind = torch.device(device).type
    if kind == "cpu":
        return found
    return found.to(device if memory_share() == 1 else device_of_process(kind) or device)


def _packed(value: Any) -> "Tensor":
    """The bytes of a value, (bytes,) uint8: how long each part is, the pickled frame, and the tensors' numbers."""
    import torch

    buffers: list[pickle.PickleBuffer] = []
    frame = BytesIO()
    _Pickler(frame, protocol=5, buffer_callback=buffers.append).dump(value)
    parts: list[memoryview] = [frame.getbuffer(), *(buffer.raw() for buffer in buffers)]
    lengths = torch.tensor([len(parts), *(len(part) for part in parts)]).numpy().tobytes()
    whole = bytearray()
    for part in (memoryview(lengths), *parts):
        whole += part
        whole += bytes(-len(whole) % _ALIGNED)
    return torch.frombuffer(whole, dtype=torch.uint8)


def _unpacked(raw: "Tensor") -> Any:
    """The value that `_packed` made bytes of.

    They are from the other processes of this run, which run the same program.
    """
    import torch

    view = raw.numpy().data
    count = int(torch.frombuffer(view[:8], dtype=torch.int64)[0])
    lengths = torch.frombuffer(view[8 : 8 * (1 + count)], dtype=torch.int64).tolist()
    at = _after(8 * (1 + count))
    parts = []
    for length in lengths:
        parts.append(view[at : at + length])
        at = _after(at + length)
    return pickle.loads(parts[0], buffers=parts[1:])


def _after(at: int) -> int:
    return at + -at % _ALIGNED
