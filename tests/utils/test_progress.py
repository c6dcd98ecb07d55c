"""What is seen of long work: plain lines where there is no terminal, a bar that moves smoothly where there is one."""

import io
import sys
import threading
import time

import pytest
from rich.console import Console

from tests.helpers.random_models import random_model
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.forward_pass import forward_backbone
from weight_edit.runtime.generation import generate
from weight_edit.utils import progress
from weight_edit.utils.progress import EVERY, Lines, Meter, announce, bar, duration


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress on, as on the command line."""
    monkeypatch.setattr(progress, "_quiet_by_default", False)
    monkeypatch.setattr(progress, "_begun", {})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, loud: None) -> io.StringIO:
    """What a terminal of 80 columns is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(progress, "_console", lambda: Console(file=sent, force_terminal=True, width=80))
    return sent


def test_the_first_of_many_tokens_is_no_rate() -> None:
    """A prompt is read before its answer begins: by that the answers would take a week."""
    clock = Clock()
    meter = Meter(total=300, unit="answers", clock=clock)
    clock.now += 45
    meter.advance(0.02)
    assert (meter.rate, meter.left, str(meter)) == (None, None, "0 of 300, 45 s so far")
    meter.advance(0.98)
    assert str(meter) == "1 of 300, 0.0222 answers/s, about 3 h 44 min left"
    one = Meter(total=1, clock=clock)
    clock.now += 10
    one.advance(0.01)
    assert one.left == pytest.approx(990)


def test_the_first_line_comes_at_once_and_others_now_and_then() -> None:
    clock, said = Clock(), []
    lines = Lines(description="candidates", meter=Meter(total=96, clock=clock), write=said.append)
    lines.begin()
    assert said == ["candidates: 0 of 96"]
    for _ in range(120):
        clock.now += 1
        lines.advance(0.1)
        lines.tick()
    assert 2 <= len(said) - 1 <= 120 / EVERY
    assert said[-1] == "candidates: 12 of 96, 10 s each, about 14 min left"
    clock.now += 840
    lines.advance(84)
    lines.end()
    assert said[-1] == "candidates: 96 of 96, in 16 min"


def test_what_is_done_is_said_once_though_a_line_was_due_just_then() -> None:
    clock, said = Clock(), []
    lines = Lines(description="candidates", meter=Meter(total=1, clock=clock), write=said.append)
    lines.begin()
    clock.now += 32
    lines.advance()
    lines.tick()
    clock.now += 1
    lines.end()
    assert said == ["candidates: 0 of 1", "candidates: 1 of 1, in 32 s"]


def test_a_step_that_never_advances_still_has_its_lines() -> None:
    clock, said = Clock(), []
    lines = Lines(description="loading some/model", meter=Meter(total=None, clock=clock), write=said.append)
    lines.begin()
    clock.now += EVERY
    lines.tick()
    assert said == ["loading some/model", "loading some/model: 15 s so far"]


def test_a_count_that_stands_still_is_told_ever_more_rarely() -> None:
    clock, said, times = Clock(), [], []
    lines = Lines(description="answers", meter=Meter(total=96, unit="answers", clock=clock), write=said.append)
    lines.begin()
    for _ in range(1800):
        clock.now += 1
        before = len(said)
        lines.tick()
        times += [clock.now - 100] * (len(said) - before)
    assert times == [15, 45, 105, 225, 465, 765, 1065, 1365, 1665]
    # As soon as it moves, there is a line again, and soon another.
    lines.advance()
    clock.now += 1
    lines.tick()
    assert said[-1].startswith("answers: 1 of 96, ")
    clock.now += EVERY
    lines.advance()
    lines.tick()
    assert said[-1].startswith("answers: 2 of 96, ")


def test_rate_and_time_left_follow_a_machine_that_slows_down() -> None:
    """The mean since the beginning says for half an hour that four minutes are left."""
    clock = Clock()
    meter = Meter(total=1000, unit="answers", clock=clock)
    for _ in range(200):
        clock.now += 1
        meter.advance(4)
    assert str(meter) == "800 of 1,000, 4 answers/s, about 50 s left"
    for _ in range(60):
        clock.now += 10
        meter.advance(1)
    assert meter.mean == pytest.approx(860 / 800)
    assert meter.rate == pytest.approx(0.1, rel=0.1)
    assert meter.left == pytest.approx(1400, rel=0.1)
    # It recovers as fast.
    for _ in range(100):
        clock.now += 1
        meter.advance(1)
    assert meter.rate == pytest.approx(1, rel=0.1)


def test_a_wait_for_the_next_step_counts() -> None:
    clock = Clock()
    meter = Meter(total=100, clock=clock)
    for _ in range(50):
        clock.now += 1
        meter.advance(1)
    estimates = []
    for _ in range(30):
        clock.now += 60
        estimates.append(meter.left)
    assert estimates == sorted(estimates)
    assert estimates[-1] > 20 * estimates[0] / 2
    assert len(meter._marks) < 70


def test_the_recent_rate_covers_three_steps_however_long_they_take() -> None:
    clock = Clock()
    meter = Meter(total=20, clock=clock)
    for seconds in (100, 100, 100, 400, 400, 400):
        clock.now += seconds
        meter.advance()
    assert meter.rate == pytest.approx(1 / 400)
    # What memory ran out for is taken back; the mean stands in where that is all that happened.
    meter.advance(-4)
    assert meter.rate == pytest.approx(2 / 1500)


def test_many_steps_are_kept_as_few_marks() -> None:
    clock = Clock()
    meter = Meter(total=1e6, unit="bytes", clock=clock)
    for _ in range(20000):
        clock.now += 0.05
        meter.advance(10)
    assert meter.rate == pytest.approx(200, rel=0.05)
    assert len(meter._marks) < 120
    clock.now += 1
    meter.advance(1e6 - meter.count)
    assert str(meter) == "1.0 MB of 1.0 MB, in 17 min, 0.0 MB/s"


def test_the_rate_does_not_count_what_an_earlier_attempt_did() -> None:
    clock = Clock()
    meter = Meter(total=100, first=50, clock=clock)
    clock.now += 10
    meter.advance(5)
    assert (meter.rate, meter.left) == (0.5, 90.0)
    assert str(meter) == "55 of 100, 2.0 s each, about 90 s left"
    size = Meter(total=4e9, unit="bytes", clock=clock)
    clock.now += 2
    size.advance(1e9)
    assert str(size) == "1.00 GB of 4.00 GB, 500.0 MB/s, about 6.0 s left"


def test_an_estimate_is_there_however_long_a_step_takes() -> None:
    """The library's own forgets what is older than half a minute."""
    clock = Clock()
    meter = Meter(total=10, clock=clock)
    clock.now += 300
    meter.advance()
    clock.now += 100
    assert str(meter) == "1 of 10, 7 min each, about 60 min left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12, "12 s"), (99, "99 s"), (200, "3 min"), (7500, "2 h 5 min")],
)
def test_times_for_a_reader(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_where_there_is_no_terminal(loud: None, capsys: pytest.CaptureFixture[str]) -> None:
    announce("verify: checking every byte")
    with bar("activations", 64) as shown, bar("within", 3) as within:
        shown.advance(64)
        within.advance()
        within.say("seen")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["verify: checking every byte", "activations: 0 of 64", "seen"]
    assert captured.out == ""


def test_many_short_tasks_alike_are_not_as_many_lines(loud: None, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(50):
        with bar("answers", 55) as shown:
            shown.advance(55)
        with bar("first tokens", 8):
            pass
    assert capsys.readouterr().err.splitlines() == ["answers: 0 of 55", "first tokens: 0 of 8"]


def test_silence_where_progress_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    announce("verify: checking every byte")
    with bar("activations", 64) as shown:
        shown.say("seen")
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_at_once_on_a_terminal(terminal: io.StringIO) -> None:
    with bar("activations [x]", 64):
        assert "activations [x]" in terminal.getvalue()
        assert "0 of 64" in terminal.getvalue()
    with bar("loading some/model"):
        assert "loading some/model" in terminal.getvalue()


def test_bars_move_within_a_batch(small_model, monkeypatch: pytest.MonkeyPatch, loud: None) -> None:
    """One batch of all prompts moves the bar with each block, and answers with each token."""
    model = small_model("llama")
    moves: list[float] = []
    monkeypatch.setattr(Lines, "advance", lambda _self, n=1: moves.append(n))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    prompts = [[5, 6, 7]] * 8
    next_token_logprobs(model, prompts)
    assert len(moves) >= model.anatomy.n_layers
    assert max(moves) <= 8 / model.anatomy.n_layers + 1e-6
    assert sum(moves) == pytest.approx(8)
    moves.clear()
    generate(model, prompts, max_new_tokens=6)
    assert len(moves) >= 6
    assert sum(moves) == pytest.approx(8)
    assert not any(place._forward_pre_hooks for place in model.model.modules())


def test_a_batch_that_runs_out_of_memory_is_taken_back(loud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.runtime.passes import run_model

    moves: list[float] = []
    monkeypatch.setattr(Lines, "advance", lambda _self, n=1: moves.append(n))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    model = random_model("llama")

    def step(batch):
        forward_backbone(model, batch)
        if len(batch.rows) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return len(batch.rows)

    done = [count for _, count in run_model(model, [[1, 2]] * 4, step, description="x")]
    assert done == [2, 2]
    # Four blocks of four rows, which are taken back, and twice four of two.
    whole, half = [1.0] * 4, [0.5] * 4
    assert moves == [*whole, -4.0, *half, *half]


def test_progress_is_shown_beside_a_json_document_and_not_when_asked_for_silence(call) -> None:
    args = (
        "evaluate",
        "organism",
        "--answered",
        "organism:answered:test",
        "--limit",
        11,
        "--max-new-tokens",
        2,
        "--json",
    )
    loud = call(*args)
    assert loud.json["model"] == "organism"
    assert "loading organism" in loud.progress
    assert "answers: 0 of 11" in loud.progress
    quiet = call(*args, "--quiet")
    assert quiet.json == loud.json
    assert quiet.progress == []


def test_a_block_that_is_quiet_leaves_other_threads_as_they_are() -> None:
    assert progress.is_quiet()
    with progress.quieted(False):
        assert not progress.is_quiet()
        with progress.quieted(True):
            assert progress.is_quiet()
        assert not progress.is_quiet()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(progress.is_quiet()))
        thread.start()
        thread.join()
        assert seen == [True]
    assert progress.is_quiet()


def test_lines_are_written_from_the_thread_that_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Meter, "seconds", 2 * EVERY)
    monkeypatch.setattr(progress, "_TICK", 0.01)
    with progress.quieted(False), bar("a long step", 2) as shown:
        shown.advance()
        time.sleep(0.1)
    assert "a long step: 1 of 2" in capsys.readouterr().err


def test_the_public_switch_is_for_every_thread() -> None:
    progress.enable_progress_bars()
    try:
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(progress.is_quiet()))
        thread.start()
        thread.join()
        assert seen == [False]
    finally:
        progress.disable_progress_bars()
