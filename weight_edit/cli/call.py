"""The frame of every verb's function call: progress, tables or JSON, Ctrl-C as one line."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TypeVar

from weight_edit.cli.launched import shared, tell
from weight_edit.cli.stdout import printing
from weight_edit.errors import ProcessError, plain
from weight_edit.utils.json import json_safe
from weight_edit.utils.launch import launched

if TYPE_CHECKING:
    from rich.console import Console

KEPT = "nothing was written or changed"
RESUMED = "no finished model was left; go on with --resume"


class Stopped(SystemExit):
    """Raised by SIGTERM or SIGHUP to unwind the stack, with the exit code that shells expect."""


class Documented(Protocol):
    """A result that can be converted to a JSON document."""

    def to_dict(self) -> Mapping[str, object]: ...


Result = TypeVar("Result")


def as_dict(result: Documented) -> Mapping[str, object]:
    """The JSON document of a result."""
    return result.to_dict()


def call(
    work: Callable[[], Result],
    show: "Callable[[Result, Console], None]",
    document: Callable[[Result], Mapping[str, object]],
    *,
    as_json: bool,
    quiet: bool,
    kept: str | Callable[[], str] = KEPT,
    divided: bool = False,
    live: bool = False,
) -> Result:
    """Call a verb's function and print its result, as tables or as JSON.

    Args:
        work: the function.
        show: prints its result.
        document: the result, ready for JSON.
        as_json: print JSON instead of tables.
        quiet: show no progress.
        kept: what is said to be left when it is interrupted; a function is asked then.
        live: show the steps of a run as they go, on a terminal.
        divided: the processes that a launcher started share its prompts; another verb takes one process.

    Raises:
        UsageError: several processes were started for a verb that takes one.
        ProcessError: another process ended.
    """
    from weight_edit.prompts.readings import readings
    from weight_edit.utils.progress import quieted

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    def left() -> str:
        return kept if isinstance(kept, str) else kept()

    # The first of several processes speaks for all.
    quiet = quiet or not launched().first
    facts: Mapping[str, object] = {}
    try:
        # Under --json too: progress is on stderr, the document on stdout.
        with (
            quieted(quiet),
            readings(say, show_first=sys.stderr.isatty()) as read,
            _stoppable(),
            _viewed(live and not quiet),
        ):
            if launched().several:
                result, facts = shared(work, divided=divided)
            else:
                result = work()
    except (KeyboardInterrupt, Stopped) as stop:
        # Typer would say "Aborted." instead.
        why = f", or one of the {launched().count} processes ended" if launched().several else ""
        code = int(str(stop.code)) if isinstance(stop, Stopped) else 130
        tell(f"interrupted{why}; {left()}", code)
        raise SystemExit(code) from None
    except ProcessError as error:
        error.args = (plain(f"{error}; {left()}"),)
        raise
    if not launched().first:
        return result
    with printing():
        if as_json:
            said = {**document(result), **facts}
            if read:
                said = {**said, "prompts_read": [reading.to_dict() for reading in read]}
            print(json.dumps(json_safe(said), indent=2, allow_nan=False))
        else:
            from rich.console import Console

            # Names of prompt sets such as organism:copyright:train are no emoji.
            show(result, Console(emoji=False))
    return result


def say_card(line: str | None) -> None:
    """Print what was done to a model's card, on stderr."""
    if line is not None:
        print(line, file=sys.stderr)


@contextmanager
def _viewed(live: bool) -> Iterator[None]:
    """Within the context, a run has its live view where stderr is a terminal that can be drawn on."""
    if not (live and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console

    console = Console(stderr=True, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    from weight_edit.cli.live import live_view

    with live_view(console):
        yield


@contextmanager
def _stoppable() -> Iterator[None]:
    """Within the context, SIGTERM and SIGHUP unwind the stack unless they are handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(128 + number)

    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup has SIGHUP ignored, and that is how it stays.
    ours = [number for number in names if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
