"""What every verb does around its one function call: progress on or off, tables or JSON, Ctrl-C in one line."""

import json
import sys
from collections.abc import Callable
from typing import Any

from weight_edit.finite import finite


def call(
    work: Callable[[], Any],
    show: str | Callable[[Any, Any], None],
    as_json: bool,
    quiet: bool,
    to_json: Callable[[Any], Any] = lambda result: result.to_dict(),
) -> Any:
    """Call a verb's function and print its result, as tables or as JSON."""
    from weight_edit.progress import set_quiet
    from weight_edit.prompts.readings import readings

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    set_quiet(quiet or as_json)
    try:
        with readings(say) as read:
            result = work()
    except KeyboardInterrupt:
        # Typer would say "Aborted." instead.
        print(
            "weight-edit: interrupted; no finished model was left (bake and run go on with --resume)", file=sys.stderr
        )
        raise SystemExit(130) from None
    if as_json:
        document = to_json(result)
        if read and isinstance(document, dict):
            document = {**document, "prompts_read": [reading.to_dict() for reading in read]}
        print(json.dumps(finite(document), indent=2, allow_nan=False))
        return result
    from rich.console import Console

    from weight_edit import show as shows

    painter = getattr(shows, show) if isinstance(show, str) else show
    # Names of prompt sets such as organism:copyright:train are no emoji.
    painter(result, Console(emoji=False))
    return result
