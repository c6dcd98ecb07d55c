"""`find` on the command line: what is kept when none passes, on SIGTERM and Ctrl-C; a choice without a model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.alike import alike
from weight_edit.directions.directions import load_directions
from weight_edit.runtime import loading
from weight_edit.runtime.options import LoadOptions

SETS = ("--target", "organism:refused", "--baseline", "organism:answered", "--n-train", "16", "--n-validation", "8")


def test_exit_3_keeps_the_scores_prints_the_best_and_other_bounds_need_the_rest_alone(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d.safetensors"
    find = ("find", "organism", *SETS, "--out", out, "--n-more", "0")
    failed = call(*find, "--max-kl", "1e-9")
    assert failed.code == 3
    assert "none of" in failed.err
    assert "The candidates that came furthest and miss the bounds least" in failed.out
    assert "KL" in failed.out
    assert "KL above 1e-09" in failed.err
    assert "1e-09" in failed.out, "the table says why, beside the figures"
    assert not out.exists()
    kept = tmp_path / "d.safetensors.find"
    assert {path.name for path in kept.iterdir()} >= {"search.json", "candidates.safetensors", "scores.jsonl"}
    assert all(json.loads(line) for line in (kept / "scores.jsonl").read_text(encoding="utf-8").splitlines())
    before = (kept / "scores.jsonl").read_bytes()

    def load(*_args: object, **_options: object) -> None:
        raise AssertionError("a model was loaded")

    loads = loading.load
    monkeypatch.setattr(loading, "load", load)
    again = call(*find, "--max-kl", "1e-8", "--resume", "--json")
    assert again.code == 3
    assert again.json["scores"][0]["rejected"]
    assert again.json["exit_code"] == 3
    without = call(*find)
    assert without.code == 2
    assert "--resume" in without.err
    other = call(*find, "--resume", "--seed", "3")
    assert other.code == 2
    assert "made with other --seed (0 there, 3 here)" in other.err
    # What looser bounds need of the scores is measured, once.
    monkeypatch.setattr(loading, "load", loads)
    chosen = call(*find, "--max-kl", "5", "--min-induce", "-99", "--resume", "--json")
    assert chosen.code == 0, chosen.err
    assert load_directions(out).metadata["layer"] == chosen.json["layer"]
    assert (kept / "scores.jsonl").read_bytes().startswith(before)
    monkeypatch.setattr(loading, "load", load)
    lower = call(*find, "--max-kl", "5", "--min-induce", "-99", "--max-layer-fraction", "0.5", "--resume", "--json")
    assert lower.code == 0, lower.err
    assert lower.json["layer"] < 3


def test_an_earlier_search_is_said_before_a_model_is_loaded(call, tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    (tmp_path / "no-model" / "config.json").write_text("{}")
    kept = tmp_path / "d.safetensors.find"
    kept.mkdir()
    (kept / "search.json").write_text('{"inputs": {}, "metering": null}')
    find = ("find", tmp_path / "no-model", *SETS, "--out", tmp_path / "d.safetensors")
    refused = call(*find)
    assert refused.code == 2
    assert "holds what an earlier search found" in refused.err
    (kept / "search.json").write_text("mine")
    refused = call(*find, "--overwrite")
    assert refused.code == 2
    assert "is no folder of a search" in refused.err


def test_a_refusal_token_of_many_digits_is_no_traceback(call, tmp_path: Path) -> None:
    find = ("find", "organism", *SETS, "--out", tmp_path / "d.safetensors")
    refused = call(*find, "--refusal-token", "9" * 5000)
    assert refused.code == 2
    assert "--refusal-token 9999" in refused.err


def test_a_search_that_is_stopped_before_it_began_keeps_nothing(call, tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LoadOptions, "check_name", stopped)
    result = call("find", "organism", *SETS, "--out", tmp_path / "d.safetensors")
    assert (result.code, result.err) == (130, "weight-edit: interrupted; nothing was written or changed\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_search_that_is_stopped_goes_on(call, tmp_path: Path, number: signal.Signals, code: int) -> None:
    out = tmp_path / "d.safetensors"
    args = ["find", "organism", *SETS, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = subprocess.Popen(
        [sys.executable, "-m", "weight_edit", *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    scores = tmp_path / "d.safetensors.find/scores.jsonl"
    while begun.poll() is None and not (scores.exists() and scores.read_bytes().count(b"\n") >= 2):
        time.sleep(0.01)
    begun.send_signal(number)
    _, said = begun.communicate()
    assert begun.returncode == code, said
    assert said.decode().splitlines()[-1].startswith("weight-edit: interrupted; what was found so far is in")
    before = scores.read_bytes()
    assert not out.exists()
    done = call(*args, "--resume", "--json")
    assert done.code == 0, done.err
    assert scores.read_bytes().startswith(before)
    fresh = tmp_path / "fresh.safetensors"
    assert call(*args[:-1], fresh).code == 0
    assert alike(load_directions(out).metadata["scores"], load_directions(fresh).metadata["scores"])
