"""A process that tries model types: `python -m weight_edit.inspection.catalogue.worker`.

On stdin it is given entries, one a line in JSON, and answers each with a line on stdout, its trial. Everything else
that is printed goes to stderr. It ends when stdin does.
"""

import json
import os
import sys

from weight_edit.inspection.catalogue.entries import Entry
from weight_edit.utils.orphans import end_with_parent


def main() -> None:
    """Try entries from stdin until it ends."""
    end_with_parent()
    # Libraries, also those in C, print to the first descriptor: from here on that is stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    from weight_edit.inspection.catalogue.trial import attempt

    torch.set_num_threads(1)
    with answers:
        for line in sys.stdin:
            given = json.loads(line)
            entry = Entry(given["model_type"], given["architecture"], tuple(given["tasks"]), given["variant"])
            print(json.dumps(attempt(entry).to_dict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
