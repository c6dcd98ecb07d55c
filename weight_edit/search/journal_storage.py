"""The Optuna study in which a journal is kept: in a file, or in an SQL database.

Imported only where a journal is opened, since Optuna takes its time.
"""

import random
import sqlite3
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import check_target
from weight_edit.errors import UsageError, first_line
from weight_edit.redaction import remember
from weight_edit.search.folder import JOURNAL_FILE
from weight_edit.search.journal_entry import OBJECTIVES, Entry, FinishedError, State
from weight_edit.search.journal_lock import JournalLock

_SMALL, _LARGE = 40_000, 1 << 23
"""Characters of one attribute: MySQL's texts have 65,535 bytes, others have no bound that matters."""

_BEGIN = b'{"op_code":'
"""What Optuna's file begins with."""

_FIRST = {"studies", "version_info"}
"""The tables that Optuna makes before all others."""

_TRIES = 6
_LOOKS = 4
_SECONDS = 60
_SECRETS = ("password", "passwd", "pwd", "sslpassword", "token")


_STATES = {
    TrialState.WAITING: State.WAITING,
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.DONE,
    TrialState.PRUNED: State.DONE,
    TrialState.FAIL: State.FAILED,
}


class Storage:
    """Optuna's storage, and the study in it.

    All methods raise UsageError where the file or the database fails, and those that change a trial raise FinishedError
    where it has finished.

    Args:
        storage: Optuna's.
        name: of the study.
        shown: what the user knows the storage by, without a password.
        longest: how many characters an attribute may have.
        reading: the same storage, for looks at all trials; `storage` where none is given.
    """

    def __init__(
        self, storage: BaseStorage, name: str, shown: str, longest: int, reading: BaseStorage | None = None
    ) -> None:
        self._storage, self._name, self.shown, self.longest = storage, name, shown, longest
        self._reading = storage if reading is None else reading
        self._generation = self._id = -1
        self._study: optuna.Study | None = None
        self._trials: dict[int, int] = {}

    def find(self) -> bool:
        """Whether the study is there: the last one, where it was begun anew; it is this one from then on."""
        with self._said():
            generation = self._generation
            while self._has(generation + 1):
                generation += 1
            if generation < 0:
                return False
            if generation != self._generation:
                self._take(generation)
        return True

    def create(self) -> bool:
        """Make the study, or a new one in place of what was found; False if another process did so in between.

        An earlier one stays as it is. Were it deleted, databases would give its numbers to what comes next, and a
        process that still works on it would write there.
        """
        with self._said():
            name = self._named(self._generation + 1)
            try:
                self._storage.create_new_study([StudyDirection.MINIMIZE] * len(OBJECTIVES), name)
            except optuna.exceptions.DuplicatedStudyError:
                created = False
            else:
                created = True
            study = self._take(self._generation + 1)
            if created:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(list(OBJECTIVES))
        return created

    def check_is_last(self) -> None:
        """Refuse to go on with a study in whose place another was begun.

        Raises:
            UsageError: it was.
        """
        with self._said():
            if self._has(self._generation + 1):
                raise UsageError(f"another process has begun the search in {self.shown} anew")

    def _named(self, generation: int) -> str:
        return self._name if generation == 0 else f"{self._name} ({generation + 1})"

    def _has(self, generation: int) -> bool:
        try:
            self._reading.get_study_id_from_name(self._named(generation))
        except KeyError:
            return False
        return True

    def _take(self, generation: int) -> optuna.Study:
        self._generation, self._trials = generation, {}
        name = self._named(generation)
        self._id = self._storage.get_study_id_from_name(name)
        sampler = optuna.samplers.RandomSampler()
        self._study = optuna.load_study(study_name=name, storage=self._reading, sampler=sampler)
        return self._study

    def attributes(self) -> Mapping[str, Any]:
        """The study's attributes."""
        with self._said():
            return self._storage.get_study_user_attrs(self._id)

    def write_attribute(self, key: str, text: str) -> None:
        """Set an attribute of the study."""
        with self._said():
            self._storage.set_study_user_attr(self._id, key, text)

    def entries(self) -> list[Entry]:
        """All trials, by number."""
        assert self._study is not None
        with self._said():
            return [_entry(trial) for trial in self._study.get_trials(deepcopy=False)]

    def entry(self, number: int) -> Entry:
        """One trial."""
        with self._said():
            return _entry(self._storage.get_trial(self._trial(number)))

    def add(self, attributes: Mapping[str, str]) -> int:
        """The number of a new trial that waits."""
        with self._said():
            trial = create_trial(state=TrialState.WAITING, user_attrs=dict(attributes))
            made = self._storage.create_new_trial(self._id, trial)
            number = self._storage.get_trial_number_from_id(made)
            self._trials[number] = made
            return number

    def claim(self, number: int) -> bool:
        """Set a waiting trial running; of several processes that try, one gets True."""
        with self._said():
            return self._storage.set_trial_state_values(self._trial(number), TrialState.RUNNING)

    def write(self, number: int, key: str, text: str) -> None:
        """Set an attribute of a trial."""
        with self._said():
            self._storage.set_trial_user_attr(self._trial(number), key, text)

    def finish(self, number: int, *, values: Sequence[float] | None = None, failed: bool = False) -> None:
        """End a trial.

        One that has a result without values is "pruned" in Optuna's words: its tools fail at a complete trial that
        has none.

        Args:
            values: of the objectives.
            failed: it has no result.
        """
        state = TrialState.FAIL if failed else TrialState.PRUNED if values is None else TrialState.COMPLETE
        with self._said():
            self._storage.set_trial_state_values(self._trial(number), state, values)

    def leave_thread(self) -> None:
        """Let go of what the storage holds for the calling thread."""
        for each in (self._storage, self._reading):
            each.remove_session()

    def close(self) -> None:
        """Let go of the file or the database."""
        self.leave_thread()
        for each in (self._storage, self._reading):
            engine = getattr(each, "engine", None)
            if engine is not None:
                engine.dispose()

    def _trial(self, number: int) -> int:
        if number not in self._trials:
            self._trials[number] = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        return self._trials[number]

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of the file or of the database, as the user's."""
        try:
            yield
        except optuna.exceptions.UpdateFinishedTrialError:
            raise FinishedError from None
        except KeyError as error:
            raise UsageError(f"{self.shown} has no such study any more: somebody has removed it") from error
        except (optuna.exceptions.OptunaError, SQLAlchemyError, OSError, ValueError) as error:
            raise UsageError(f"{self.shown} cannot be used as a journal: {_reason(error)}") from error


def in_folder(folder: Path, name: str) -> Storage:
    """The storage in a folder's file.

    Both are made where they are missing; an earlier file is read and not changed.

    Raises:
        UsageError: it cannot be made or read, or the file is no journal of Optuna's.
    """
    path = folder.absolute() / JOURNAL_FILE
    shown = printable(str(folder / JOURNAL_FILE))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{printable(str(folder))} cannot be made: {error.strerror}") from error
    check_target(path)
    foreign = UsageError(f"{shown} is no journal of a search; choose another folder, or move it away")
    try:
        if path.exists():
            with path.open("rb") as file:
                begin = file.read(len(_BEGIN))
            if begin and begin != _BEGIN:
                raise foreign
        storage = JournalStorage(_Backend(str(path), lock_obj=JournalLock(path)))
    except OSError as error:
        raise UsageError(f"{shown} cannot be used as a journal: {error.strerror}") from error
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # Optuna takes every line for one of its own.
        raise foreign from error
    return Storage(storage, name, shown, _LARGE)


def in_database(text: str, name: str) -> Storage:
    """The storage in an SQL database, whose tables are made where they are missing.

    A password is nowhere in messages.

    Raises:
        UsageError: the address is none, its driver is missing, or there is no such database.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the address of a journal's database cannot be read; SCHEME://... is its form") from error
    for secret in _secrets(url):
        remember(secret)
    shown = printable(f"{url.drivername}://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}")
    lite = url.get_backend_name() == "sqlite"
    if lite:
        _check_sqlite(url, shown)
    options: dict[str, Any] = {"connect_args": {"timeout": _SECONDS}} if lite else {"pool_pre_ping": True}
    try:
        storage = _made(text, options)
        reading = _made(text, options) if lite else None
    except ImportError as error:
        raise UsageError(f"{shown} needs a driver that is not installed: {printable(first_line(error))}") from error
    except Exception as error:
        # Whatever a driver raises.
        raise UsageError(f"{shown} cannot be opened: {_reason(error)}") from error
    if lite:
        _serialise(storage.engine)
    longest = _SMALL if url.get_backend_name() in ("mysql", "mariadb") else _LARGE
    return Storage(storage, name, shown, longest, reading)


def _made(text: str, options: Mapping[str, Any]) -> RDBStorage:
    """Optuna's storage in a database, with its tables; of two processes that make them at the same time, one fails."""
    for _ in range(_TRIES - 1):
        try:
            return RDBStorage(text, engine_kwargs=dict(options))
        except ImportError:
            raise
        except Exception:  # noqa: BLE001
            time.sleep(random.uniform(0.05, 0.4))
    return RDBStorage(text, engine_kwargs=dict(options))


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Within the context Optuna logs errors alone."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Backend(JournalFileBackend):
    """Optuna's file, read while another process cuts off what a third one left of a line.

    Its bytes may be read together with those that follow in their place; a second look has the line.
    """

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        number = log_number_from
        for left in reversed(range(_LOOKS)):
            try:
                for entry in super().read_logs(number):
                    number += 1
                    yield entry
                return
            except ValueError:
                if not left:
                    raise
                time.sleep(0.05)


def _reason(error: Exception) -> str:
    """What went wrong: Optuna's own errors guess at it, and have what the database said as their cause."""
    told = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else None
    return printable(first_line(error if told is None else told))


def _entry(trial: FrozenTrial) -> Entry:
    return Entry(trial.number, _STATES[trial.state], trial.user_attrs)


def _secrets(url: URL) -> Iterator[str]:
    if url.password:
        yield str(url.password)
    for key, value in url.query.items():
        if key.lower() in _SECRETS:
            yield from (value,) if isinstance(value, str) else value


def _check_sqlite(url: URL, shown: str) -> None:
    """Refuse a database in memory, and a file that is something else.

    Raises:
        UsageError: as said.
    """
    if not url.database or ":memory:" in url.database:
        raise UsageError(f"{shown} is in memory, where no journal outlives its process; name a file")
    path = Path(url.database)
    if url.database.startswith("file:") or not path.exists():
        return
    check_target(path)
    try:
        try:
            tables = _tables(path, "ro")
        except sqlite3.OperationalError as error:
            # A process was killed in the middle of a transaction: who looks next has to take it back first.
            if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
                raise
            tables = _tables(path, "rw")
    except sqlite3.Error as error:
        raise UsageError(f"{shown} cannot be read: {printable(first_line(error))}") from error
    if tables and not tables & _FIRST:
        raise UsageError(f"{shown} is a database of something else; name another file")


def _tables(path: Path, mode: str) -> set[str]:
    """The names of a database's tables.

    Args:
        mode: "ro" to read only, "rw" to take back first what a killed process left undone.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_SECONDS)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Have SQLite's transactions begin with the lock for writing.

    By default Python begins them at the first change, after the look at what is to be changed: two processes would
    both find a trial waiting, and both run it.
    """
    # Those made before do not have it.
    engine.dispose()

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begun(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
