"""A function of somebody else's is stopped when it does not end, or takes too much memory, in any thread."""

import os
import pathlib
import threading
import time

import pytest

from weight_edit.utils import bounded_process as limited
from weight_edit.utils.bounded_process import ForeignError, Limited, LimitError
from weight_edit.utils.orphans import PIPE, leash


def named(what: str) -> object:
    if what == "loop":
        while True:
            pass
    if what == "memory":
        return len(bytearray(1 << 40))
    if what == "fail":
        raise ValueError("two\nlines")
    if what == "die":
        os._exit(3)
    return [what, os.getpid()]


@pytest.fixture
def function(monkeypatch):
    monkeypatch.setattr(limited, "SECONDS", 0)
    made = Limited(named)
    yield made
    made.close()


def test_results_and_failures_come_back_from_another_process(function):
    text, process = function("x")
    assert text == "x"
    assert process != os.getpid()
    assert function("y") == ["y", process]
    with pytest.raises(ForeignError, match=r"^two lines$"):
        function("fail")
    with pytest.raises(ForeignError, match="more than 1 GiB"):
        function("memory")
    assert function("z") == ["z", process]


@pytest.mark.parametrize("what", ["loop", "die"])
def test_what_was_stopped_is_said_and_the_next_call_is_answered(function, what):
    with pytest.raises(LimitError, match="seconds of a processor"):
        function(what)
    assert function("x")[0] == "x"


def test_a_loop_is_stopped_outside_of_the_main_thread_too(function):
    found: list[BaseException] = []

    def work() -> None:
        try:
            function("loop")
        except LimitError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(found) == 1


def test_the_process_goes_with_the_function():
    made = Limited(named)
    process = made("x")[1]
    del made
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_child_on_a_leash_ends_when_its_parent_is_killed(tmp_path):
    """The worker that proves anatomies, held by a process that is killed before it is asked anything."""
    import signal
    import subprocess
    import sys

    parent = tmp_path / "parent.py"
    parent.write_text(
        "import os, subprocess, sys, time\n"
        "from weight_edit.utils.orphans import PIPE, leash\n"
        "code = 'import time; from weight_edit.utils.orphans import end_with_parent; end_with_parent(); '\n"
        "code += 'print(1, flush=True); time.sleep(600)'\n"
        "with leash() as held:\n"
        "    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, pass_fds=(held,),\n"
        "                             env={**os.environ, PIPE: str(held)})\n"
        "    child.stdout.readline()\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = str(pathlib.Path(limited.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(parent)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _gone(child)


def _gone(process: int) -> bool:
    """Whether it has ended, soon; nobody may be left to collect it, so that a name without a command counts."""
    for _ in range(200):
        try:
            with open(f"/proc/{process}/stat", encoding="utf-8") as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_both_workers_watch_their_parent():
    from weight_edit.inspection.catalogue import worker as catalogue
    from weight_edit.proofs import worker as anatomy

    for module in (anatomy, catalogue):
        assert "end_with_parent" in module.main.__code__.co_names
    with leash() as held:
        assert os.get_inheritable(held) is False
    assert PIPE == "WEIGHT_EDIT_PARENT"
