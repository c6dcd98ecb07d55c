"""One thread for models too small to gain from more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context, torch uses one thread.

    On a busy machine, threads with little to do wait for one another.

    The embedded model answers the demo's prompts in seconds on one thread, and in minutes on two when another
    program keeps a core busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
