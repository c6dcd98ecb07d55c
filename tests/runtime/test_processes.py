"""Several processes ask together: the same results as one, each prompt once, errors on all of them."""

from pathlib import Path

import pytest
import torch

from tests.helpers import shared_questions
from tests.helpers.several_processes import launch
from weight_edit.errors import UsageError
from weight_edit.runtime import processes
from weight_edit.runtime.activations import ResidualStatistics
from weight_edit.runtime.loading import load
from weight_edit.runtime.processes import Processes, divided, from_first, together
from weight_edit.utils.launch import Launched, launched

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
ADDRESS = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_the_launcher_says_which_process_this_is() -> None:
    assert launched({**TORCHRUN, **ADDRESS}) == Launched(rank=3, count=4, local_rank=1, local_count=2)
    assert not launched({**TORCHRUN, **ADDRESS}).first


@pytest.mark.parametrize(
    "environment",
    [
        {},
        TORCHRUN,
        {**TORCHRUN, **ADDRESS, "WORLD_SIZE": "1", "RANK": "0"},
        {**TORCHRUN, **ADDRESS, "RANK": "4"},
        {**TORCHRUN, **ADDRESS, "WORLD_SIZE": "four"},
        {"WORLD_SIZE": "8", **ADDRESS},
    ],
)
def test_what_is_not_whole_is_one_process(environment: dict[str, str]) -> None:
    assert launched(environment) == Launched()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_hold_every_item_once_and_cost_alike(count: int) -> None:
    place = Launched(rank=0, count=count, local_count=count)
    costs = [(37 * item) % 23 + 1 for item in range(97)]
    shares = Processes(place=place, prompts=[0] * count, _group=None, _store=None).share(costs)
    assert len(shares) == count
    assert sorted(item for share in shares for item in share) == list(range(97))
    totals = [sum(costs[item] for item in share) for share in shares]
    assert max(totals) - min(totals) <= max(costs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_is_sent_arrives_as_it_is() -> None:
    error = UsageError("pass `overwrite=True`", option="overwrite")
    sent = {
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "turned": torch.randn(4, 6).T,
        "number": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "others": [1, "text", None, (float("inf"),)],
    }
    got, refused = processes._unpacked(processes._packed((sent, error)))
    assert got.keys() == sent.keys()
    for name, value in sent.items():
        if isinstance(value, torch.Tensor):
            assert got[name].dtype == value.dtype
            assert torch.equal(got[name], value), name
    assert got["others"] == sent["others"]
    assert (str(refused), refused.options, refused.exit_code) == ("pass `overwrite=True`", ("overwrite",), 2)


def test_without_others_nothing_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | ADDRESS).items():
        monkeypatch.setenv(name, value)
    # A program of one's own may use this package in one of its processes alone.
    assert divided([1, 1, 1], list, "items") == [0, 1, 2]
    assert from_first(lambda: "mine", "a word") == "mine"
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    with together() as found:
        assert found is None
        assert processes.facts() == {}


def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def on(rank: int, local_count: int) -> None:
        place = Launched(rank=rank, count=16, local_rank=rank % 8, local_count=local_count)
        joined = Processes(place=place, prompts=[0] * 16, _group=None, _store=None)
        monkeypatch.setattr(processes, "_processes", joined)

    on(10, 8)
    assert processes.device_of_process(None) == processes.device_of_process("cuda") == "cuda:2"
    on(7, 8)
    assert processes.device_of_process(None) == "cuda:3", "more processes than devices share them"
    assert processes.device_of_process("cpu") == "cpu"
    with pytest.raises(UsageError, match="one on each machine"):
        processes.device_of_process("auto")
    on(10, 8)
    assert processes.device_of_process("cuda:2") == "cuda:2"
    with pytest.raises(UsageError, match="each has its own"):
        processes.device_of_process("cuda:1")
    on(7, 1)
    assert processes.device_of_process("auto") == "auto"
    assert processes.device_of_process(None) is None


class _Store(dict[str, str]):
    """A store as torch's, of one process."""

    def clone(self) -> "_Store":
        return self

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self[key].encode() for key in keys]


def test_a_process_that_gives_no_sign_of_life_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    store = _Store({"life/0": "0", "life/1": "0", "life/2": "0"})
    life = processes._Life(Launched(rank=0, count=3), store)
    try:
        for sign in range(1, 30):
            now[0] += processes.BEAT
            store["life/1"] = str(sign)
            if sign < 10:
                store["life/2"] = str(sign)
                assert life.silent() is None
            elif (silent := life.silent()) is not None:
                break
        assert silent == 2
        assert processes.SILENCE < now[0] < 2 * processes.SILENCE
    finally:
        life.stop()


def test_two_processes_get_what_one_gets(tmp_path: Path) -> None:
    launcher = launch("tests.helpers.shared_questions", [tmp_path])
    _, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, err[-3000:]
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    expected = shared_questions.asked(load("organism", device="cpu"))
    for found in both:
        for name in ("residuals", "mean residuals", "next token", "one"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
        for name in ("answers", "variants", "one prompt"):
            assert found[name] == expected[name], name
        assert [row for row, _ in found["read"]] == [row for row, _ in expected["read"]]
        for (_, mine), (_, alone) in zip(found["read"], expected["read"], strict=True):
            torch.testing.assert_close(mine, alone, rtol=1e-5, atol=1e-5)
        assert found["none"] == expected["none"]
    # To the bit the same on both, so that both decide alike.
    for name in ("residuals", "mean residuals", "next token", "one"):
        assert torch.equal(both[0][name], both[1][name]), name
    # Whole batches are shared out, so that each is what one process makes of it, to the bit.
    assert torch.equal(both[0]["residuals"], expected["residuals"])
    # Five questions of seven prompts and one of one, seven under four edits, and one under four, which share the edits.
    assert both[0]["prompts"] == both[1]["prompts"]
    assert sum(both[0]["prompts"]) == 5 * 7 + 1 + 7 * 4 + 4
    assert min(both[0]["prompts"]) > 20
    assert [found["writes"] for found in both] == [True, False]
    assert [found["from first"] for found in both] == ["of process 0"] * 2
    refused = ("UsageError", "process 0 refuses `out`", ("out",))
    assert [found["refused by the first"] for found in both] == [refused] * 2
    assert [found["refused by one"] for found in both] == [("UsageError", "item 2 is refused", ())] * 2
    assert both[0]["alone"] == [0, 1]
    for found in both:
        kind, words, _ = found["apart"]
        assert kind == "ProcessError"
        assert "went apart" in words

    whole = ResidualStatistics(with_covariance=True)
    whole.update(shared_questions.rows())
    for found in both:
        count, mean, covariance = found["merged"]
        assert count == whole.count
        torch.testing.assert_close(mean, whole.mean, rtol=1e-14, atol=0)
        torch.testing.assert_close(covariance, whole.covariance, rtol=0, atol=1e-12)
