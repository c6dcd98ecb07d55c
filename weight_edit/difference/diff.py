"""The comparison of two checkpoints, tensor by tensor, and directions that explain it.

It is what `weight-edit diff A B` runs.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.manifest import said_swapped
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files, processors
from weight_edit.checkpoint.tensor.scratch import keep_freed_memory
from weight_edit.difference.collecting import Changed
from weight_edit.difference.explanation import Products, products
from weight_edit.difference.files import architecture_of, compare_files, notes_on, stream_width
from weight_edit.difference.numbers import LIMIT, ParameterChange, change_of
from weight_edit.difference.pairs import Pair, Side, stored
from weight_edit.difference.result import Difference, Fit, Reshaped, TensorDifference
from weight_edit.difference.shared import SharedDirection, Sketch, choose
from weight_edit.difference.verdict_of_files import verdict_on
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import Named, Source, resolve
from weight_edit.utils.progress import Bar, bar

_OWN = 4
"""The highest rank at which a tensor's own directions are reported."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass
class _Numbers:
    """The figures of one differing tensor, kept while shared directions are computed."""

    pair: Pair
    change: ParameterChange
    norm: float
    own: tuple[Fit, NDArray[np.float32]] | None


@dataclass
class _Compared:
    """The result of the first pass over one tensor."""

    name: str
    differs: bool
    numbers: _Numbers | None = None
    problem: str | None = None


def diff(
    a: Named, b: Named, *, revision_a: str | None = None, revision_b: str | None = None,
    token: str | None = None, verdict: bool = False,
) -> Difference:  # fmt: skip
    """Compare two checkpoints tensor by tensor, with directions that explain the differences.

    Memory does not grow with the models: tensors are read in blocks, and those that differ several times over.

    Args:
        a: the first: a folder, a GGUF file, a Hub id or "organism". Differences are B - A.
        b: the second.
        revision_a, revision_b: of Hub models.
        token: Hub access token.
        verdict: also say what B was made with; differing tensors are read some times more.

    Raises:
        UsageError: a model that cannot be found or read.
        UnsupportedError: weights in formats that are not read; a GGUF file and a folder.
    """
    began = time.monotonic()
    keep_freed_memory()
    sources = (
        resolve(a, revision=revision_a, token=token, edited=False),
        resolve(b, revision=revision_b, token=token, edited=False),
    )
    first, second = (Checkpoint.open(source.path) for source in sources)
    if (first.gguf is None) != (second.gguf is None):
        forms = ["a model folder" if side.gguf is None else "a GGUF file" for side in (first, second)]
        raise UnsupportedError(
            f"{sources[0].public_name} is {forms[0]} and {sources[1].public_name} {forms[1]}, whose tensors have other "
            "names; give both in one form"
        )
    width = stream_width(first)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Files(side)) for side in (first, second))
        stack.enter_context(threadpool_limits(1, "blas"))
        files = compare_files(ours, theirs)
        run = _Run(ours, theirs, width)
        tensors, equal, reshaped = run.tensors()
        said = run.verdict(sources[0], tensors, reshaped) if verdict else None
        read = ours.bytes_read + theirs.bytes_read
    names = tuple(architecture_of(side) for side in (first, second))
    swapped, incomplete = said_swapped(a, b), notes_on(names, first, second, width)
    return Difference(
        a=sources[0].public_name,
        b=sources[1].public_name,
        architectures=(names[0], names[1]),
        width=width,
        files_equal=len(files.equal),
        files_different=files.different,
        files_only_a=files.only_a,
        files_only_b=files.only_b,
        tensors_equal=equal,
        tensors=tuple(tensors),
        reshaped=tuple(reshaped),
        only_a=tuple(sorted(first.tensors.keys() - second.tensors.keys())),
        only_b=tuple(sorted(second.tensors.keys() - first.tensors.keys())),
        directions=tuple(run.directions),
        rows=run.rows,
        own_rows=run.own_rows,
        verdict=said,
        notes=(*([f"{swapped}: what is explained here is the way back"] if swapped else ()), *incomplete),
        bytes_read=read,
        seconds=round(time.monotonic() - began, 3),
    )


class _Run:
    """The passes over the tensors."""

    def __init__(self, a: Files, b: Files, width: int | None) -> None:
        self._a, self._b, self._width = a, b, width
        self.rows = np.zeros((0, width or 0), np.float32)
        self.own_rows: dict[str, NDArray[np.float32]] = {}
        self.directions: list[SharedDirection] = []
        self._numbers_of: list[_Numbers] = []

    def tensors(self) -> tuple[list[TensorDifference], int, list[Reshaped]]:
        """Differing tensors, the number of equal ones, and those of another shape or dtype."""
        a, b = self._a.checkpoint.tensors, self._b.checkpoint.tensors
        common = [name for name in a if name in b]
        alike, reshaped = [], []
        pairs = {name: self._pair(name) for name in common}
        # Scales go with the numbers that they scale.
        held = {part for pair in pairs.values() if pair is not None for part in [*pair.a.reads][1:]}
        for name in common:
            if name in held:
                continue
            same = (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
            if same or (a[name].shape == b[name].shape and pairs[name] is not None):
                alike.append(name)
            else:
                dtypes, shapes = (a[name].dtype, b[name].dtype), (a[name].shape, b[name].shape)
                reshaped.append(Reshaped(name, dtypes, shapes))
        sketches = {"both": Sketch(), "columns": Sketch(), "rows": Sketch()}
        found: list[_Compared] = []
        with bar("comparing", sum(a[name].size for name in alike), unit="bytes") as progress:
            for compared in _each(lambda name: self._compare(name, progress), alike):
                found.append(compared)
                if compared.numbers is not None:
                    self._sketch(compared.numbers, sketches)
        numbers = [compared.numbers for compared in found if compared.numbers is not None]
        self._numbers_of = numbers
        fits = self._share(numbers, sketches)
        differing = [self._told(compared, fits) for compared in found if compared.differs]
        return differing, len(alike) - len(differing), reshaped

    def verdict(self, source: Source, tensors: Sequence[TensorDifference], reshaped: Sequence[Reshaped]) -> Verdict:
        """What B was made with, once the tensors are compared."""
        changed = [Changed(found.pair, found.change) for found in self._numbers_of]
        sides = self._a, self._b
        return verdict_on(source, sides, changed, width=self._width, rows=self.rows, tensors=tensors, reshaped=reshaped)

    def _pair(self, name: str) -> Pair | None:
        a, b = (stored(side.checkpoint, name) for side in (self._a, self._b))
        if a is None or b is None or (a.slabs, a.rows, a.cols) != (b.slabs, b.rows, b.cols):
            return None
        return Pair(name=name, a=a, b=b, read_a=self._a.tensor, read_b=self._b.tensor)

    def _compare(self, name: str, progress: Bar) -> _Compared:
        try:
            pair = self._pair(name)
            if pair is None or not pair.a.rows * pair.a.cols * pair.slabs:
                differs = not self._same_bytes(name)
                return _Compared(name, differs, problem="its format is not decoded" if differs else None)
            change = change_of(pair, self._width)
            if change is None:
                return _Compared(name, False)
            if not change.finite:
                return _Compared(name, True, problem="has NaN or infinite values")
            if not change.entries:
                return _Compared(name, True, problem="the same numbers in other bytes")
            return _Compared(name, True, self._numbers(pair, change))
        finally:
            progress.advance(self._a.checkpoint.tensors[name].size)

    def _same_bytes(self, name: str) -> bool:
        size = self._a.checkpoint.tensors[name].size
        for begin in range(0, size, CHUNK):
            ours, theirs = (np.empty(min(CHUNK, size - begin), np.uint8) for _ in range(2))
            self._a.tensor(name, begin, ours)
            self._b.tensor(name, begin, theirs)
            if not np.array_equal(ours, theirs):
                return False
        return True

    def _numbers(self, pair: Pair, change: ParameterChange) -> _Numbers:
        """The tensor's own directions, on the side where they explain more, and |A|."""
        rank = change.rank
        best: tuple[Fit, NDArray[np.float32]] | None = None
        norm = None
        if rank and rank <= _OWN and pair.a.rows > 1:
            for side, vectors in change.vectors.items():
                along, norm = products(pair, side, vectors[:, :rank], change.square)
                fit = _fit(along, side)
                if best is None or fit.explained > best[0].explained:
                    best = fit, np.ascontiguousarray(vectors[:, :rank].T)
        if norm is None:
            norm = products(pair, "rows", np.zeros((pair.a.cols, 1)), change.square)[1]
        return _Numbers(pair, change, norm, best)

    def _sketch(self, numbers: _Numbers, sketches: Mapping[str, Sketch]) -> None:
        """Add a tensor's directions to the sketch of its side; a square tensor has two sides."""
        change, pair = numbers.change, numbers.pair
        if pair.a.rows == 1 or change.rank == 0:
            return
        count = LIMIT if change.rank is None else change.rank
        for side, vectors in change.vectors.items():
            where = "both" if len(change.vectors) == 1 else side
            sketches[where].add(vectors[:, :count], change.values[:count] / change.square**0.5)

    def _share(self, numbers: list[_Numbers], sketches: Mapping[str, Sketch]) -> dict[str, Fit]:
        """Choose the shared directions; returns how well they explain each tensor."""
        square_only = max(sketches["columns"], sketches["rows"], key=lambda sketch: sketch.concentration)
        candidates = sketches["both"].directions
        candidates = square_only.directions if candidates is None else candidates
        # What is rounding alone has nothing to explain.
        able = [found for found in numbers if found.pair.sides(self._width) and found.change.rank != 0]
        if candidates is None or not able:
            return {}

        def along(found: _Numbers) -> tuple[Side, Products]:
            tried = [
                (side, products(found.pair, side, candidates, found.change.square)[0])
                for side in found.pair.sides(self._width)
            ]
            return max(tried, key=lambda one: one[1].share)

        with bar("directions", len(able)) as progress:
            known = []
            for one in _each(along, able):
                known.append(one)
                progress.advance()
        matrices = [(f, side, product) for f, (side, product) in zip(able, known, strict=True) if f.pair.a.rows > 1]
        others = sum(found.pair.others(side) * found.pair.slabs for found, side, _ in matrices)
        basis, self.directions = choose(
            [product for _, _, product in matrices],
            [found.change.rank for found, _, _ in matrices],
            int(self._width or 0),
            others,
        )
        if not self.directions:
            return {}
        self.rows = _signed((candidates @ basis).T).astype(np.float32)
        return {
            found.pair.name: _fit(product.turned(basis), side)
            for found, (side, product) in zip(able, known, strict=True)
        }

    def _told(self, compared: _Compared, fits: Mapping[str, Fit]) -> TensorDifference:
        name = compared.name
        infos = self._a.checkpoint.tensors[name], self._b.checkpoint.tensors[name]
        plain = TensorDifference(
            name=name, dtypes=(infos[0].dtype, infos[1].dtype), shape=infos[0].shape, problem=compared.problem
        )
        numbers = compared.numbers
        if numbers is None:
            return plain
        change, matrix = numbers.change, numbers.pair.a.rows > 1
        told = replace(
            plain,
            entries=change.entries,
            relative=(change.square / numbers.norm) ** 0.5 if numbers.norm else float("inf"),
            noise=min(1.0, change.noise / change.square),
            rank=change.rank if matrix else None,
            full_rank=matrix and change.rank is None,
            shared=fits.get(name),
            own=None if numbers.own is None else numbers.own[0],
        )
        if numbers.own is not None and told.best is not None and told.best[0] == "own":
            self.own_rows[name] = _signed(numbers.own[1])
        return told


def _fit(along: Products, side: Side) -> Fit:
    strength = along.strength
    return Fit(along.explained(strength), strength, along.explained(1.0), side)


def _signed(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Each row with its largest entry positive, so that equal models give equal files."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows * np.where(largest < 0, -1, 1)


def _each(work: Callable[[_T], _R], items: list[_T]) -> Iterator[_R]:
    """The results of `work` in the order of the items, computed in a few threads."""
    with ThreadPoolExecutor(processors()) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
