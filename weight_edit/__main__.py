"""`python -m weight_edit` is the command `weight-edit`."""

import os
import sys

# `-m` puts the current folder first, and that may be a downloaded model's: nothing is imported from there, unless the
# package itself is there.
_HERE = os.getcwd()  # noqa: PTH109 (pathlib would be looked for there too)
if sys.path[:1] == [_HERE] and os.path.dirname(os.path.dirname(os.path.realpath(__file__))) != os.path.realpath(_HERE):  # noqa: PTH120
    del sys.path[0]

from weight_edit.cli.entry import main  # noqa: E402

if __name__ == "__main__":
    main()
