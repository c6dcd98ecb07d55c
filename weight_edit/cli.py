"""The command line's entry: whatever goes wrong becomes one line and an exit code."""

import json
import sys

from weight_edit.commands import app
from weight_edit.errors import WeightEditError, first_line, plain

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; a user's mistake is one line and the contract's exit code, never a traceback."""
    try:
        app()
    except WeightEditError as error:
        _fail(str(error), error.exit_code)
    except (OSError, RecursionError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, RecursionError) and "thread" not in str(error):
            raise
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe (head, less) has gone; there is nobody left to tell.
            sys.stderr.close()
            raise SystemExit(1) from None
        _fail(f"{type(error).__name__}: {first_line(error)}", 2)
    except SystemExit as stop:
        if stop.code == 2 and "--json" in sys.argv:
            print(json.dumps({"error": "the call is wrong; see stderr", "exit_code": 2}))
        raise


def _fail(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    print(f"weight-edit: {plain(message)}", file=sys.stderr)
    raise SystemExit(code) from None
