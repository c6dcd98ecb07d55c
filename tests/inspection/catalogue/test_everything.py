"""All families in several processes: what dies or hangs costs one trial, and nothing is a traceback."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from weight_edit.cli import entry as cli
from weight_edit.inspection.catalogue import summary
from weight_edit.inspection.catalogue import trials as everything
from weight_edit.inspection.catalogue.entries import Entry, entries
from weight_edit.inspection.catalogue.status import FAILED, PROVEN, REFUSED
from weight_edit.inspection.catalogue.summary import Catalogue, group
from weight_edit.inspection.catalogue.trial import Trial
from weight_edit.inspection.catalogue.trials import chosen_entries, try_all

ANSWERS = """
import json, os, sys, time
for line in sys.stdin:
    entry = json.loads(line)
    {}
    trial = dict(model_type=entry["model_type"], architecture="X", tasks=["text"], status="proven", leak=1e-8,
                 logit_difference=0.0)
    print(json.dumps(trial), flush=True)
"""


def some(*names: str) -> list[Entry]:
    return [Entry(name, "X", ("text",)) for name in names]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Let the processes run other code."""

    def use(line: str) -> None:
        (tmp_path / "other_worker.py").write_text(ANSWERS.format(line))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(everything, "WORKER", "other_worker")

    return use


def test_two_families_and_a_refusal_for_real() -> None:
    found = {
        trial.label: trial for trial in try_all([*chosen_entries(["opt"]), *chosen_entries(["bert"])], processes=1)
    }
    assert found["opt"].status == PROVEN
    assert found["opt"].leak < 1e-5 < 0.1 < found["opt"].leak_before
    assert found["opt"].logit_difference < 1e-4
    assert "learned positions" in found["opt"].kinds
    assert "model.decoder.layers.*.fc2" in found["opt"].writers
    assert found["opt (350m)"].variant == "350m"
    assert found["bert"].status == REFUSED
    assert "encoder" in found["bert"].why


def test_a_process_that_dies_costs_one_trial(worker) -> None:
    worker("os.kill(os.getpid(), 9) if entry['model_type'] == 'b' else None")
    found = {trial.model_type: trial for trial in try_all(some(*"abcd"), processes=2)}
    assert {name: trial.status for name, trial in found.items()} == {"a": PROVEN, "b": FAILED, "c": PROVEN, "d": PROVEN}
    assert "killed by signal 9" in found["b"].reason


def test_a_process_that_ends_says_its_exit_code(worker) -> None:
    worker("sys.exit(7)")
    (trial,) = try_all(some("a"), processes=1)
    assert (trial.status, trial.reason) == (FAILED, "the process that tried it ended with exit code 7")


def test_what_takes_too_long_is_given_up(worker) -> None:
    worker("time.sleep(60) if entry['model_type'] == 'a' else None")
    started = time.monotonic()
    found = {trial.model_type: trial for trial in try_all(some("a", "b"), processes=1, patience=1.5)}
    assert found["a"].status == FAILED
    assert "more than 2 s" in found["a"].reason
    assert found["b"].status == PROVEN
    assert time.monotonic() - started < 50


def test_an_interrupted_run_leaves_no_process(worker) -> None:
    worker(
        "open(os.environ['PYTHONPATH'].split(os.pathsep)[0] + f'/{os.getpid()}.pid', 'w').close();"
        " time.sleep(60) if entry['model_type'] == 'b' else None"
    )
    running = try_all(some("a", "b"), processes=2)
    assert next(running).model_type == "a"
    running.close()
    started = list(Path(everything.sys.path[0]).glob("*.pid"))
    assert started
    for path in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


def test_the_command_interrupted_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(summary, "try_all", interrupted)
    monkeypatch.setattr(sys, "argv", ["weight-edit", "inspect", "--all", "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(("status", "code"), [(REFUSED, 0), (FAILED, 4)])
def test_only_what_failed_makes_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    made = [Trial.of(Entry("llama", "LlamaForCausalLM", ("text",)), status, "model type 'llama' is an encoder-decoder")]
    monkeypatch.setattr(summary, "try_all", lambda *_, **__: iter(made))
    monkeypatch.setattr(sys, "argv", ["weight-edit", "inspect", "--all", "--only", "llama", "--json"])
    try:
        cli.main()
        ended = 0
    except SystemExit as stop:
        ended = stop.code
    found = json.loads(capsys.readouterr().out)
    assert ended == code
    assert found["counts"] == {"proven": 0, "refused": 0, "failed": 0} | {status: 1}
    assert found["trials"][0]["model_type"] == "llama"


def test_all_entries_are_there_with_their_variants() -> None:
    labels = [entry.label for entry in chosen_entries()]
    assert {entry.model_type for entry in entries()} <= set(labels)
    assert {"opt (350m)", "falcon (40b)", "deepseek_v2 (lite)"} <= set(labels)
    assert len(labels) == len(set(labels))


def test_counts_are_of_model_types_and_not_of_variants() -> None:
    opt = Entry("opt", "X", ("text",))
    measured = {"leak": 1e-8, "logit_difference": 0.0, "kinds": ("biases",)}
    variant = Entry("opt", "X", ("text",), "350m")
    found = Catalogue.of([Trial.of(variant, PROVEN, **measured), Trial.of(opt, PROVEN, **measured)])
    assert [trial.label for trial in found.trials] == ["opt", "opt (350m)"]
    assert found.counts() == {"proven": 1, "refused": 0, "failed": 0}
    assert found.kinds() == {"biases": 1}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("model type 't5' is an encoder-decoder; only ...", "an encoder-decoder, or its decoder"),
        ("model type 'x' is an encoder (its attention looks both ways)", "an encoder: attention looks both ways"),
        ("X: the norm 'a.b' lies in the residual stream itself: ...", "a norm lies in the residual stream itself"),
        ("something never seen", "other"),
    ],
)
def test_reasons_are_grouped(reason: str, kind: str) -> None:
    assert group(reason) == kind
