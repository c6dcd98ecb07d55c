"""`weight-edit ui` as a process, for tests in a browser."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path


class PageServer:
    """A server over projects in a folder; nothing is opened by itself.

    Attributes:
        address: of the page, with its key.
        port: that it listens on.
    """

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-m", "weight_edit", "ui", "--no-open", "--folder", "projects"]
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            words, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        )
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"http://\S+", said)
        assert found is not None, said
        self.address = found.group()
        self.port = int(self.address.split(":")[2].split("/")[0])

    def end(self) -> None:
        """As Ctrl-C does; nothing where it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)
