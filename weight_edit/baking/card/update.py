"""Later measurements added to the manifest and the card of an output, with digests updated."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.card_and_manifest import README, origin_of, summary_of, with_measurements
from weight_edit.checkpoint.files import list_files, printable
from weight_edit.checkpoint.manifest import (
    MANIFEST,
    FileRecord,
    read_manifest,
    record,
    records_of,
    sha256,
    write_manifest,
)
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import WeightEditError


def fill_in(
    folder: str | Path,
    *,
    verification: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    edited: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
    digests_checked: bool = False,
) -> str | None:
    """Add measurements to the manifest and the card of an output; entries not given stay.

    Nothing is an error: a folder that is not ours, whose files are not those of its manifest, or that is read-only,
    stays as it is.

    Args:
        folder: what was measured. A Hub id or the like is no output of ours.
        verification: as `Verification.to_dict` gives it; one that failed is not written down, nor one without the
            models in the place of one with them.
        baseline, edited: as `Evaluation.to_dict` gives it. A recorded baseline stays where the new figures can be
            compared with it.
        base: what the figures were measured against; they are written down only if it is the base.
        digests_checked: the files were compared with the manifest just now.

    Returns:
        A line for the user: that it was done, or why not; None where there was nothing to do.
    """
    path = Path(folder)
    if not (path / MANIFEST).is_file():
        return None
    card = path / README
    try:
        manifest = read_manifest(path)
        if manifest is None or manifest.get("kind") == "adapter" or not isinstance(manifest.get("card"), Mapping):
            return None
        before = manifest.get("measurements") or {}
        if verification is not None and (not verification.get("passed") or _is_less(verification, before)):
            return None
        if base is not None and not _same(base, origin_of(manifest, path).model):
            return f"the card stays as it is: {printable(str(base))} is not the base that {MANIFEST} names"
        if not digests_checked and not _unchanged(path, manifest):
            return f"the card stays as it is: the files of {printable(str(path))} are not those that {MANIFEST} lists"
        after = dict(before)
        if verification is not None:
            after["verification"] = verification
        if edited is not None:
            kept = before.get("baseline") if baseline is None else baseline
            after |= {"edited": edited, "baseline": kept if kept and _comparable(kept, edited) else None}
        failed = tuple(map(str, manifest.get("failed") or ()))
        content = with_measurements(summary_of(manifest), after, failed)
        text = model_card(content).encode()
        # The same again, but for how long it took: files that do not change are not written.
        if text == card.read_bytes():
            return None
        _write(path, content, text, records_of(manifest))
    except (WeightEditError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return f"the card stays as it is: {printable(reason)}"
    return f"{card}: filled in with what was measured"


def _write(folder: Path, content: Mapping[str, Any], text: bytes, records: dict[str, FileRecord]) -> None:
    """Write the card and the manifest, both or neither."""
    card = folder / README
    old = card.read_bytes()
    with _undisturbed():
        write_whole(card, text)
        try:
            write_manifest(folder, content, {**records, README: record(folder, README, "added")})
        except BaseException:
            write_whole(card, old)
            raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # Blocking them would not do: they are for the process, and other threads take them.
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)
        if came:
            signal.raise_signal(came[0])


def _is_less(verification: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the recorded verification ran the models and the new one did not."""
    recorded = before.get("verification") or {}
    return bool(verification.get("weights_only")) and recorded.get("leak") is not None


def _same(base: str | Path, named: str) -> bool:
    """Whether a base is the model that the manifest names.

    A manifest has only the last part of a local folder's name.
    """
    return str(base) == named or Path(base).name == named or Path(base).resolve().name == named


def _unchanged(path: Path, manifest: Mapping[str, Any]) -> bool:
    records = records_of(manifest)
    if set(list_files(path)[0]) - {MANIFEST} != set(records):
        return False
    return all(sha256(path / name) == known.sha256 for name, known in records.items())


def _comparable(baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> bool:
    """Whether two evaluations used the same judge, settings and prompts."""

    def asked(evaluation: Mapping[str, Any]) -> Any:
        sets = {name: found.get("sha256") for name, found in (evaluation.get("sets") or {}).items()}
        return [evaluation.get(key) for key in ("judge", "max_new_tokens", "system")], sets

    return bool(asked(baseline) == asked(edited))
