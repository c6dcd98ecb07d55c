"""A process that derives and proves one anatomy.

Its command is `python -m weight_edit.proofs.worker FOLDER NAME`.

On stdin it is given the tensors of the checkpoint, see `Stored.to_json`. Its last line on stdout is the answer in JSON;
everything else that is printed goes to stderr.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weight_edit.anatomy.disk.stored import Stored
from weight_edit.errors import WeightEditError
from weight_edit.proofs.proven import answer_of
from weight_edit.proofs.record import ProvenAnatomy
from weight_edit.utils.orphans import end_with_parent


def main() -> None:
    """Derive, prove, and print the answer; this package's errors are answers with exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m weight_edit.proofs.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    end_with_parent()
    # Libraries, also those in C, print to the first descriptor: from here on that is stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stored = Stored.from_json(sys.stdin.read())
    found: ProvenAnatomy | WeightEditError
    try:
        # transformers imports scipy, where it is installed, for the losses of object detectors: 33 MiB for nothing.
        with _hidden("scipy"):
            from weight_edit.proofs.architecture import derive_and_prove

        found = derive_and_prove(given.folder, given.name, stored, trust_remote_code=given.trust_remote_code)
    except WeightEditError as error:
        found = error
    with answers:
        answers.write(answer_of(found) + "\n")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Within the context, imports of a package fail as if it was not installed."""
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


if __name__ == "__main__":
    main()
