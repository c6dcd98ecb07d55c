"""What every verb does around its one function call: progress on or off, tables or JSON, Ctrl-C in one line."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from weight_edit.utils.json import json_safe

KEPT = "no finished model was left (bake and run go on with --resume)"


class Stopped(SystemExit):
    """SIGTERM or a closed terminal: what unwinds the stack as Ctrl-C does, with the exit code that shells expect."""


def call(
    work: Callable[[], Any],
    show: str | Callable[[Any, Any], None],
    as_json: bool,
    quiet: bool,
    to_json: Callable[[Any], Any] = lambda result: result.to_dict(),
    kept: str = KEPT,
) -> Any:
    """Call a verb's function and print its result, as tables or as JSON.

    Args:
        work: the function.
        show: prints its result, or the name of what does in `weight_edit.cli.tables.results`.
        as_json: print JSON instead.
        quiet: show no progress.
        to_json: the result, ready for JSON.
        kept: what is said to be left when it is interrupted.
    """
    from weight_edit.prompts.readings import readings
    from weight_edit.utils.progress import is_quiet, set_quiet

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    before = is_quiet()
    # Under --json too: progress is on stderr, the document on stdout.
    set_quiet(quiet)
    try:
        with readings(say) as read, _stoppable():
            result = work()
    except (KeyboardInterrupt, Stopped) as stop:
        # Typer would say "Aborted." instead.
        print(f"weight-edit: interrupted; {kept}", file=sys.stderr)
        raise SystemExit(stop.code if isinstance(stop, Stopped) else 130) from None
    finally:
        set_quiet(before)
    if as_json:
        document = to_json(result)
        if read and isinstance(document, dict):
            document = {**document, "prompts_read": [reading.to_dict() for reading in read]}
        print(json.dumps(json_safe(document), indent=2, allow_nan=False))
        return result
    from rich.console import Console

    from weight_edit.cli.tables import results as shows

    painter = getattr(shows, show) if isinstance(show, str) else show
    # Names of prompt sets such as organism:copyright:train are no emoji.
    painter(result, Console(emoji=False))
    return result


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM (Slurm, `kill`) and SIGHUP (a closed terminal) unwind the stack, unless somebody handles them."""
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
