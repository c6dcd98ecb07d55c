"""Jobs: processes of their own, told from their folders alone, stopped as by Ctrl-C."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from weight_edit.errors import UsageError
from weight_edit.search.owner import Owner
from weight_edit.ui.jobs import COMMAND, LOG, RESULT, Job, read_job, read_jobs, start_job

WAITS = """
import sys, time
print("working", file=sys.stderr, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted; nothing was written", file=sys.stderr)
    raise SystemExit(130)
"""


def started(folder: Path, code: str, *words: str, token: str | None = None) -> Job:
    return start_job(folder, words or ("find",), token=token, program=(sys.executable, "-c", code))


def until(seen: Callable[[Job], bool], folder: Path) -> Job:
    """The job when it is as wanted."""
    for _ in range(600):
        job = read_job(folder)
        assert job is not None
        if seen(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"{job.state}: {job.log.lines}")


def ended(folder: Path) -> Job:
    return until(lambda job: job.state != "running", folder)


def test_a_job_that_is_done_has_its_document_and_its_lines(tmp_path: Path) -> None:
    code = "import json, sys; print('one line', file=sys.stderr); print(json.dumps({'words': sys.argv[1:]}))"
    started(tmp_path / "1", code, "find", "organism", "--json")
    job = ended(tmp_path / "1")
    assert job.state == "done"
    assert job.result == {"words": ["find", "organism", "--json"]}
    assert job.log.lines == ("one line",)
    assert (job.verb, job.error) == ("find", None)


def test_an_error_is_the_commands_one_line_with_what_it_is_about(tmp_path: Path) -> None:
    said = json.dumps({"error": "there is no model 'x'", "exit_code": 2, "options": ["model"]})
    started(tmp_path / "1", f"print({said!r}); raise SystemExit(2)")
    job = ended(tmp_path / "1")
    assert (job.state, job.error, job.options) == ("failed", "there is no model 'x'", ("model",))


def test_it_is_stopped_as_by_ctrl_c(tmp_path: Path) -> None:
    started(tmp_path / "1", WAITS)
    job = until(lambda job: job.log.lines == ("working",), tmp_path / "1")
    assert job.state == "running"
    assert not job.is_stopping
    job.stop()
    assert job.is_stopping
    job = ended(tmp_path / "1")
    assert (job.state, job.is_stopping) == ("stopped", False)
    assert job.log.lines[-1] == "interrupted; nothing was written"


def test_a_killed_one_is_lost_with_its_last_words(tmp_path: Path) -> None:
    started(tmp_path / "1", "import os, sys; print('far', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)")
    job = ended(tmp_path / "1")
    assert job.state == "lost"
    assert job.error == "it ended without a result: far"


def test_it_goes_on_when_who_started_it_has_ended(tmp_path: Path) -> None:
    wait = "import sys, time; sys.stdin.read(); time.sleep(1); print('{}')"
    code = (
        "import sys; from pathlib import Path; from weight_edit.ui.jobs import start_job\n"
        f"start_job(Path({str(tmp_path / '1')!r}), ['find'], program=(sys.executable, '-c', {wait!r}))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    job = read_job(tmp_path / "1")
    assert job is not None
    assert job.state == "running"
    assert ended(tmp_path / "1").state == "done"


def test_another_process_with_the_same_id_is_not_it_and_is_not_stopped(tmp_path: Path) -> None:
    job = started(tmp_path / "1", WAITS)
    until(lambda job: job.log.lines == ("working",), tmp_path / "1")
    entry = json.loads((tmp_path / "1" / COMMAND).read_text())
    entry["process"]["start"] -= 1
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / COMMAND).write_text(json.dumps(entry))
    other = read_job(tmp_path / "2")
    assert other is not None
    assert other.state == "lost"
    other.stop()
    assert read_job(tmp_path / "1").state == "running"  # type: ignore[union-attr]
    job.stop()
    assert ended(tmp_path / "1").state == "stopped"


@pytest.mark.parametrize(("result", "state"), [('{"layer": 3}', "done"), ("", "lost")])
def test_one_from_before_the_machine_was_started_anew_is_at_work_no_more(
    tmp_path: Path, result: str, state: str
) -> None:
    process = {**Owner.here().to_dict(), "machine": "another start"}
    (tmp_path / COMMAND).write_text(json.dumps({"words": ["find"], "out": None, "began": 0, "process": process}))
    (tmp_path / RESULT).write_text(result)
    job = read_job(tmp_path)
    assert job is not None
    assert job.state == state
    assert (job.error is None) == (state == "done")


def test_a_token_is_in_the_environment_alone(tmp_path: Path) -> None:
    token = "hf_" + "a" * 30
    started(tmp_path / "1", "import os; print('{\"length\": %d}' % len(os.environ['HF_TOKEN']))", token=token)
    assert ended(tmp_path / "1").result == {"length": len(token)}
    assert all(token not in path.read_text() for path in (tmp_path / "1").iterdir())


def test_a_folder_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(UsageError, match="cannot be made"):
        started(tmp_path / "1", "")


def test_a_command_that_cannot_be_started_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="find cannot be started: embedded null byte"):
        start_job(tmp_path / "1", ["find", "a\0b"])
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_number_cannot_be_noted_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(path: Path, content: str) -> None:
        written.append(json.loads(content)["process"])
        if written[-1] is not None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("weight_edit.ui.jobs.write_whole", full)
    with pytest.raises(UsageError, match="No space left"):
        started(tmp_path / "1", WAITS)
    before, after = written
    assert before is None
    assert Owner.from_dict(after).has_ended
    assert not (tmp_path / "1").exists()


def test_a_package_of_our_name_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weight_edit").mkdir()
    (tmp_path / "weight_edit" / "__main__.py").write_text("print('{\"foreign\": 1}')")
    (tmp_path / "weight_edit" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    start_job(tmp_path / "1", ["plan", "--json", "--no-such-option"])
    job = ended(tmp_path / "1")
    assert job.state == "failed"
    assert "no-such-option" in str(job.error)


def test_folders_that_hold_something_else_are_no_jobs(tmp_path: Path) -> None:
    for name, content in (("a", "[]"), ("b", "{"), ("c", '{"words": "x", "process": 3, "began": "x", "out": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / COMMAND).write_text(content)
    (tmp_path / "d").mkdir()
    jobs = read_jobs(tmp_path)
    assert [job.name for job in jobs] == ["c"]
    assert (jobs[0].state, jobs[0].words, jobs[0].out) == ("lost", (), None)
    assert read_jobs(tmp_path / "none") == []


def test_a_half_written_document_is_none(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / COMMAND).write_text('{"words": ["find"], "process": null, "began": 0, "out": null}')
    (tmp_path / "1" / RESULT).write_text('{"layer": 3')
    (tmp_path / "1" / LOG).write_bytes(b"\xff\xfe\x1b[31mred\n")
    job = read_job(tmp_path / "1")
    assert job is not None
    assert (job.state, job.result) == ("lost", None)
    assert "\x1b" not in "".join(job.log.lines)
