"""The journal of a search: what was done is done, whoever did it, so that a killed search goes on and others join in.

It is an Optuna study (`journal_storage`), in a file or an SQL database, that all processes of a search share. Every
piece of work is a *unit* of a *stage*. An attempt at a unit is a trial, which goes through its states in one direction:
waiting, running (one process sets it so, atomically), and then done, with a result, or failed. The attempt that counts
is the first one, by trial number, that has not failed. So attempts that two processes add at the same time do no harm,
and one whose process has ended is failed by whoever notices; the next goes on from the state that it kept. A process
that was thought dead and is not finds its attempt failed as soon as it writes.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.files import printable
from weight_edit.errors import ProcessError, UsageError, WeightEditError, first_line
from weight_edit.redaction import redacted
from weight_edit.search.heartbeat import Heartbeat, Watch
from weight_edit.search.journal_entry import OBJECTIVES, Entry, FinishedError, State
from weight_edit.search.json_text import decoded, encoded, joined, parts
from weight_edit.search.owner import Owner
from weight_edit.utils.extras import need
from weight_edit.version import __version__

if TYPE_CHECKING:
    from weight_edit.search.journal_storage import Storage

NAME = "weight_edit.search"
"""The study's name where none is given; in a database it goes on, see `study_name`."""

NOTES = "notes"
"""The stage of what was noted."""

_INPUTS, _STAGE, _UNIT, _CLAIM, _OWNER, _BEAT, _STATE, _RESULT, _ERROR = (
    *("inputs", "stage", "unit", "claim", "owner"),
    *("beat", "state", "result", "error"),
)
"""Names of attributes."""

_SHORTEST, _LONGEST = 0.02, 2.0
"""Seconds between two looks at what others do."""

_PATIENCE = 5.0
"""Seconds in which a process that has made a study says what it is of."""

Unit = Callable[["Keeper"], Mapping[str, Any]]
"""Work that gives a JSON object; where that has `values`, they are refusal and damage, as Optuna's tools show them."""

Told = Callable[[int, int, str, Mapping[str, Any]], None]
"""What is called with each result, once: how many of a stage are there, of how many, the unit's name, the result."""


class ClaimLostError(Exception):
    """The unit was taken over by another process, since this one gave no sign of life; what it does is of no use."""


class Keeper:
    """What a unit that takes long keeps, so that it goes on where it was killed.

    Attributes:
        state: what was kept last, by this attempt or an earlier one; None for nothing.
    """

    def __init__(self, storage: "Storage", number: int, state: Any) -> None:
        self._storage, self._number = storage, number
        self.state = state
        self.written: list[str] = []
        self._count = 0

    def keep(self, state: Any) -> None:
        """Keep a JSON value in place of what was kept before.

        Raises:
            ClaimLostError: the unit is another process's by now; it is to pass through.
            TypeError, ValueError: no JSON value.
            UsageError: the journal cannot be written.
        """
        text = encoded(state)
        for key, part in parts(_STATE, text, self._storage.longest, self._count % 2):
            _written(self._storage, self._number, key, part)
            if key not in self.written:
                self.written.append(key)
        self._count += 1
        self.state = decoded(text)


class Journal:
    """What a search has done so far, shared by all processes that work on it; `open` gives one.

    A process works on one stage at a time.

    Attributes:
        shown: its file or database, as messages name it.
        told: called with each result of a stage, those of others and of earlier attempts too.
    """

    def __init__(self, storage: "Storage", told: Told | None) -> None:
        self._storage, self.told = storage, told
        self.shown = storage.shown
        self._me = Owner.here()
        self._watch = Watch()
        # What went wrong before this process began may have been put right.
        self._earlier = {entry.number for entry in storage.entries() if entry.state is State.FAILED}

    @classmethod
    def open(
        cls,
        where: str | Path,
        inputs: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        name: str = NAME,
        told: Told | None = None,
    ) -> "Journal":
        """The journal of a search: a new one, or an earlier one of the same inputs.

        A folder has one search's. In a database, which many may share, each finds its own, and those of other inputs
        stand beside it: neither is refused, nor begun anew in place of the other.

        Args:
            where: a folder, made where it is missing, or the address of an SQL database, such as
                "sqlite:///search.db" or "postgresql://user:password@host/database".
            inputs: what all results depend on, by name, JSON values.
            resume: go on with what is there, also beside other processes; where nothing is, begin.
            overwrite: begin anew whatever is there, in another study beside the earlier one. With `resume`: only where
                the inputs are others.
            name: of the study, which in a database ends with a digest of the inputs.
            told: called with each result of a stage.

        Raises:
            UsageError: something is there and neither was asked for, a folder's is of other inputs (named), it is not
                ours or cannot be used, a process works on what was to be overwritten, or Optuna is not installed.
        """
        need("optuna", "a search with a journal")
        from weight_edit.search.journal_storage import in_database, in_folder, quiet_optuna

        given = decoded(encoded(dict(inputs)))
        with quiet_optuna():
            if "://" in str(where):
                storage = in_database(str(where), study_name(given, name))
            else:
                storage = in_folder(Path(where), name)
            found = storage.find()
            if found:
                found = _is_kept(storage, given, resume=resume, overwrite=overwrite)
            if not found and storage.create():
                _write_inputs(storage, given)
            elif not found:
                # Another process was faster.
                _is_kept(storage, given, resume=True, overwrite=False)
            return cls(storage, told)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file or the database."""
        self._storage.close()

    def note(self, key: str, value: Any) -> Any:
        """The value that all processes find under `key` from now on: the first that was noted.

        Raises:
            TypeError, ValueError: no JSON value.
            UsageError: the journal cannot be used.
        """
        return _noted(self._storage, self.stage(NOTES, {key: lambda _: {"noted": value}})[key])

    def noted(self, key: str) -> Any:
        """What was noted under `key`; None for nothing."""
        for entry in self._attempts(NOTES).get(key, []):
            if entry.state is State.DONE:
                return _noted(self._storage, _result(self._storage, entry))
        return None

    def stage(self, name: str, units: Mapping[str, Unit]) -> dict[str, dict[str, Any]]:
        """The results of all units, each done by this process or by another, now or earlier; in the order of `units`.

        Returns when all are done. Units whose process has ended are taken over: at once where it was on this machine,
        and otherwise after a minute without a sign of life.

        Args:
            name: of the stage.
            units: by name; each is a deterministic function of the journal's inputs and of earlier results.

        Raises:
            ProcessError: a unit failed in another process since this one opened the journal.
            TypeError, ValueError: a result is no JSON object.
            UsageError: the journal cannot be used.
            Exception: whatever a unit raises here.
        """
        from weight_edit.search.journal_storage import quiet_optuna

        results: dict[str, dict[str, Any]] = {}
        pause = _SHORTEST
        with quiet_optuna():
            while True:
                self._storage.check_is_last()
                attempts = self._attempts(name)
                self._gather(units, attempts, results)
                if len(results) == len(units):
                    self._fail_waiting(each for unit in units for each in attempts[unit])
                    return {unit: results[unit] for unit in units}
                self._check_failures(units, attempts)
                if self._work(name, {unit: units[unit] for unit in units if unit not in results}, attempts):
                    pause = _SHORTEST
                else:
                    time.sleep(pause)
                    pause = min(1.5 * pause, _LONGEST)

    def _attempts(self, stage: str) -> dict[str, list[Entry]]:
        """The trials of a stage by unit, in order.

        Raises:
            UsageError: one is of no unit.
        """
        found: dict[str, list[Entry]] = {}
        for entry in self._storage.entries():
            if entry.attributes.get(_STAGE) == stage:
                unit = entry.attributes.get(_UNIT)
                if not isinstance(unit, str):
                    raise _not_ours(self._storage)
                found.setdefault(unit, []).append(entry)
        return found

    def _gather(
        self,
        units: Mapping[str, Unit],
        attempts: Mapping[str, list[Entry]],
        results: dict[str, dict[str, Any]],
    ) -> None:
        """Add what is done to `results`, and tell of it."""
        for unit in units:
            entry = _standing(attempts.get(unit, []))
            if unit not in results and entry is not None and entry.state is State.DONE:
                results[unit] = _result(self._storage, entry)
                if self.told is not None:
                    self.told(len(results), len(units), unit, results[unit])

    def _check_failures(self, units: Mapping[str, Unit], attempts: Mapping[str, list[Entry]]) -> None:
        """Refuse to go on where a unit failed in another process and nobody tries it anew.

        Raises:
            ProcessError: with that process's message.
        """
        for unit in units:
            entries = attempts.get(unit, [])
            if _standing(entries) is not None:
                continue
            for entry in entries:
                if _ERROR in entry.attributes and entry.number not in self._earlier:
                    owner = _owners(self._storage, entry)
                    raise ProcessError(
                        f"{owner[0] if owner else 'another process'} failed at {unit} of the search in {self.shown}: "
                        f"{entry.attributes[_ERROR]}"
                    )

    def _work(self, stage: str, units: Mapping[str, Unit], attempts: Mapping[str, list[Entry]]) -> bool:
        """Whether there was something to do: a unit was done, or freed from a process that has ended.

        Args:
            units: those without a result.
            attempts: of the stage, as they were read last.
        """
        for unit, work in units.items():
            entries = attempts.get(unit, [])
            entry = _standing(entries)
            if entry is None:
                entries = self._added(stage, unit)
                entry = _standing(entries)
            if entry is None:
                return True
            if entry.state is State.RUNNING and self._is_left(entry):
                self._end(entry.number)
                return True
            said = self._claim_of_mine.keys() <= entry.attributes.keys()
            if entry.state is State.WAITING and self._claim(entry.number, said=said):
                self._run(unit, work, entry.number, entries)
                return True
        return False

    def _added(self, stage: str, unit: str) -> list[Entry]:
        """All attempts at a unit, one of them new; if another process added one before, that is the one that counts."""
        number = self._storage.add({_STAGE: stage, _UNIT: unit, **self._claim_of_mine})
        entries = self._attempts(stage)[unit]
        standing = _standing(entries)
        if standing is not None and standing.number != number:
            self._fail_waiting(entry for entry in entries if entry.number == number)
        return entries

    @property
    def _claim_of_mine(self) -> dict[str, str]:
        return {f"{_CLAIM}.{self._me.token}": encoded(self._me.to_dict())}

    def _claim(self, number: int, *, said: bool = False) -> bool:
        """Whether the trial is this process's now.

        Args:
            said: it has this process among those that may claim it.
        """
        try:
            # First, so that it is known who may have been killed right after the claim.
            for key, text in () if said else self._claim_of_mine.items():
                self._storage.write(number, key, text)
            if not self._storage.claim(number):
                return False
            self._storage.write(number, _OWNER, self._me.token)
        except FinishedError:
            return False
        return True

    def _run(self, unit: str, work: Unit, number: int, entries: list[Entry]) -> None:
        """Do a unit whose trial is ours.

        Args:
            entries: all attempts at it.
        """
        keeper = Keeper(self._storage, number, _kept(self._storage, entries))
        try:
            with Heartbeat(lambda count: self._beat(number, count), self._storage.leave_thread):
                result = work(keeper)
            self._finish(unit, number, result, keeper)
        except ClaimLostError:
            return
        except Exception as error:
            # The error says more than what may go wrong in telling others of it.
            with suppress(WeightEditError, ClaimLostError):
                self._fail(entries, number, error)
            raise
        except BaseException:
            with suppress(WeightEditError):
                self._end(number)
            raise

    def _beat(self, number: int, count: int) -> bool:
        try:
            self._storage.write(number, _BEAT, str(count))
        except FinishedError:
            return False
        except WeightEditError:
            # The next one may pass; if none does, the unit's result cannot be written either, which says so.
            return True
        return True

    def _finish(self, unit: str, number: int, result: Mapping[str, Any], keeper: Keeper) -> None:
        """Write a result.

        Raises:
            ClaimLostError: the unit is another process's by now.
            TypeError, ValueError: it is no JSON object.
        """
        if not isinstance(result, Mapping):
            raise TypeError(f"unit {unit} gave {type(result).__name__}, which is no object")
        text = encoded(dict(result))
        for key, part in parts(_RESULT, text, self._storage.longest):
            _written(self._storage, number, key, part)
        # What was kept is of no use any more, and may be long. What says of which pieces it is goes first.
        for key in sorted(keeper.written, key=lambda key: key != _STATE):
            _written(self._storage, number, key, "")
        try:
            self._storage.finish(number, values=_values(decoded(text)))
        except FinishedError:
            raise ClaimLostError(f"trial {number} was taken over by another process") from None

    def _end(self, number: int) -> None:
        """End a trial whose process has ended or will: done where its result is there, failed otherwise."""
        entry = self._storage.entry(number)
        with _checked(self._storage):
            failed = joined(entry.attributes, _RESULT) is None
        values = None if failed else _values(_result(self._storage, entry))
        with suppress(FinishedError):
            self._storage.finish(number, values=values, failed=failed)

    def _fail(self, entries: list[Entry], number: int, error: Exception) -> None:
        """Say that a unit fails, so that nobody waits for it or tries it again."""
        message = str(error) if isinstance(error, WeightEditError) else f"{type(error).__name__}: {first_line(error)}"
        self._earlier.add(number)
        _written(self._storage, number, _ERROR, redacted(message))
        stage, unit = (entries[0].attributes[name] for name in (_STAGE, _UNIT))
        self._fail_waiting(self._attempts(stage)[unit])
        with suppress(FinishedError):
            self._storage.finish(number, failed=True)

    def _fail_waiting(self, entries: Iterable[Entry]) -> None:
        """Fail those that wait: they were added by two processes at the same time."""
        for entry in entries:
            if entry.state is State.WAITING:
                with suppress(FinishedError):
                    self._storage.finish(entry.number, failed=True)

    def _is_left(self, entry: Entry) -> bool:
        """Whether nobody works any more on a trial that is running."""
        if entry.attributes.get(_OWNER) == self._me.token:
            # It failed here, and so did writing that.
            return True
        owners = _owners(self._storage, entry)
        if owners and all(owner.has_ended for owner in owners):
            return True
        return self._watch.is_stale(entry.number, (entry.attributes.get(_OWNER), entry.attributes.get(_BEAT)))


def study_name(inputs: Mapping[str, Any], name: str = NAME) -> str:
    """The name of the study of these inputs in a database."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode("ascii")).hexdigest()
    return f"{name} {digest[:16]}"


def _is_kept(storage: "Storage", inputs: dict[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """Whether the search that was found is gone on with; False to begin anew.

    Raises:
        UsageError: see `Journal.open`.
    """
    earlier = _inputs(storage)
    if earlier is None:
        # Its maker was killed before it could say.
        _write_inputs(storage, inputs)
        return True
    if not (resume or overwrite):
        raise UsageError(
            f"{storage.shown} holds an earlier search; `resume=True` goes on with it; `overwrite=True` begins anew",
            option=("resume", "overwrite"),
        )
    others = _differences(earlier, inputs)
    if overwrite and (others or not resume):
        _check_idle(storage)
        return False
    if others:
        raise UsageError(
            f"{storage.shown} is of another search, made with other {', '.join(others)}; give what it was made with, "
            "or `overwrite=True`, or another folder",
            option=("overwrite", *(key for key in {**earlier, **inputs} if key.isidentifier())),
        )
    return True


def _inputs(storage: "Storage") -> dict[str, Any] | None:
    """The inputs of the search that was found; None if it is empty and its maker has not said within a while.

    Raises:
        UsageError: it is somebody else's study.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        attributes = storage.attributes()
        with _checked(storage):
            text = joined(attributes, _INPUTS)
            found = None if text is None else decoded(text)
        if isinstance(found, dict) and isinstance(found.get("inputs"), dict):
            return dict(found["inputs"])
        if found is not None or storage.entries() or any(not key.startswith(f"{_INPUTS}.") for key in attributes):
            raise _not_ours(storage)
        if time.monotonic() > until:
            return None
        time.sleep(_SHORTEST)


@contextmanager
def _checked(storage: "Storage") -> Iterator[None]:
    """Refuse what is read within the context where no search has written it.

    Raises:
        UsageError: naming the journal.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(storage) from error


def _not_ours(storage: "Storage") -> UsageError:
    return UsageError(f"{storage.shown} has a study that no search has made; choose another folder or database")


def _write_inputs(storage: "Storage", inputs: Mapping[str, Any]) -> None:
    text = encoded({"inputs": dict(inputs), "version": __version__})
    for key, part in parts(_INPUTS, text, storage.longest):
        storage.write_attribute(key, part)


def _check_idle(storage: "Storage") -> None:
    """Refuse to begin a search anew that a process of this machine works on.

    Raises:
        UsageError: naming the process.
    """
    for entry in storage.entries():
        if entry.state is State.RUNNING and entry.attributes.get(_OWNER) is not None:
            (owner,) = _owners(storage, entry)
            if owner.is_here and not owner.has_ended:
                raise UsageError(f"{owner} works on the search in {storage.shown}; end it before it is begun anew")


def _differences(earlier: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What differs, in words, with both values where they are short."""
    found = []
    for name in sorted({*earlier, *inputs}):
        there, here = earlier.get(name), inputs.get(name)
        if there == here:
            continue
        short = all(value is None or isinstance(value, bool | int | float | str) for value in (there, here))
        values = printable(f" ({there} there, {here} here)") if short else ""
        found.append((f"`{name}`" if name.isidentifier() else name) + values)
    return found


def _written(storage: "Storage", number: int, key: str, text: str) -> None:
    """Write an attribute of a trial of ours.

    Raises:
        ClaimLostError: it is ours no more.
    """
    try:
        storage.write(number, key, text)
    except FinishedError:
        raise ClaimLostError(f"trial {number} was taken over by another process") from None


def _standing(entries: Iterable[Entry]) -> Entry | None:
    """The attempt that counts: the first that has not failed."""
    return next((entry for entry in entries if entry.state is not State.FAILED), None)


def _owners(storage: "Storage", entry: Entry) -> list[Owner]:
    """The process that runs a trial; those that may do so, where it was killed before it could say.

    Raises:
        UsageError: no search has written them.
    """
    with _checked(storage):
        claims = {
            key.partition(".")[2]: Owner.from_dict(decoded(text))
            for key, text in entry.attributes.items()
            if key.startswith(f"{_CLAIM}.")
        }
        owner = entry.attributes.get(_OWNER)
        return list(claims.values()) if owner is None else [claims[owner]]


def _kept(storage: "Storage", entries: list[Entry]) -> Any:
    """What the last attempt that kept something kept; None for nothing.

    Raises:
        UsageError: no search has written it.
    """
    with _checked(storage):
        for entry in reversed(entries):
            text = joined(entry.attributes, _STATE)
            if text is not None:
                return decoded(text)
    return None


def _result(storage: "Storage", entry: Entry) -> dict[str, Any]:
    """What a trial that is done has given.

    Raises:
        UsageError: no search has written it.
    """
    with _checked(storage):
        found = decoded(joined(entry.attributes, _RESULT))
        if not isinstance(found, dict):
            raise TypeError(f"{type(found).__name__}, which is no object")
    return found


def _noted(storage: "Storage", result: Mapping[str, Any]) -> Any:
    """The value in a note's result.

    Raises:
        UsageError: no search has written it.
    """
    with _checked(storage):
        return result["noted"]


def _values(result: Mapping[str, Any]) -> list[float] | None:
    """The objectives of a result, as Optuna takes them; None where it has none, or not as many, or NaN."""
    found = result.get("values")
    if not isinstance(found, list) or len(found) != len(OBJECTIVES):
        return None
    good = all(isinstance(value, int | float) and not math.isnan(value) for value in found)
    return [float(value) for value in found] if good else None
