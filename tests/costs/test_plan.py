"""Plans of whole models: by config alone, by prompts, from a Hub; as a document and on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.families import save_family
from weight_edit import plan_costs
from weight_edit.costs.plan import POSITIONS, TOKENS, _prefix
from weight_edit.costs.rates import Rates
from weight_edit.directions.find_request import FindRequest
from weight_edit.errors import UsageError
from weight_edit.organism.embedded import folder
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import load

FIXED = ("--no-calibrate", "--flops", "1e12", "--disk-rate", "1e9", "--quiet")


@pytest.fixture
def config_alone(tmp_path: Path) -> Path:
    """A folder that holds config.json and nothing else."""
    save_family("mixtral", tmp_path / "whole")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "whole/config.json", alone)
    return alone


def test_a_config_alone_suffices(config_alone: Path) -> None:
    found = plan_costs(config_alone, calibrate=False)
    whole = plan_costs(config_alone.parent / "whole", calibrate=False)
    assert found.size.checkpoint_bytes == whole.size.checkpoint_bytes
    assert (found.size.stored, whole.size.stored) == (False, True)
    assert found.work.target.mean == TOKENS
    assert found.work.positions == POSITIONS
    # All prompts have the same tokens behind the instruction, so that nothing tells them apart before the first block.
    assert found.work.candidates == (POSITIONS * (found.work.allowed - 1),) * 2
    assert found.work.prefix == 0
    assert found.seconds is None
    assert any("no tokenizer" in note for note in found.notes)
    assert {entry.name for entry in config_alone.iterdir()} == {"config.json"}


def test_prompts_need_a_tokenizer(config_alone: Path) -> None:
    with pytest.raises(UsageError, match=r"no tokenizer to count the prompts' tokens with.*`tokens`"):
        plan_costs(config_alone, target="organism:refused", calibrate=False)


def test_prompts_are_counted_with_the_models_tokenizer() -> None:
    found = plan_costs("organism", target="organism:refused", baseline="organism:answered", calibrate=False)
    chat = ChatFormat(load("organism").tokenizer)
    request = FindRequest.read(target="organism:refused", baseline="organism:answered")
    for lengths, prompts in ((found.work.target, request.target[0]), (found.work.baseline, request.baseline)):
        counted = [len(chat.encode_opened(prompt)) for prompt in prompts.prompts]
        assert lengths.mean == pytest.approx(sum(counted) / len(counted))
    assert found.work.measured
    assert found.work.positions == len(chat.suffix)
    assert found.work.prefix == _prefix(chat) > 0
    encoded = [chat.encode(prompt) for prompt in request.baseline.prompts]
    assert all(ids[: found.work.prefix] == encoded[0][: found.work.prefix] for ids in encoded)
    assert found.notes == ()


def test_more_prompts_are_as_many_as_train_where_these_are_few() -> None:
    def more(**asked: int) -> tuple[int, int]:
        """As planned, and as the find draws them."""
        sets = {"target": "organism:refused", "baseline": "organism:answered"}
        return plan_costs("organism", **sets, **asked, calibrate=False).work.n_more, FindRequest.read(
            **sets, **asked
        ).more

    assert more() == (64, 64)
    assert more(n_train=16) == (16, 16)
    assert more(n_train=16, n_more=40) == (40, 40)
    assert more(n_more=0) == (0, 0)


def test_of_files_with_few_prompts_those_are_counted_that_a_find_would_draw(tmp_path: Path) -> None:
    for name, count in (("a.txt", 40), ("b.txt", 40), ("c.txt", 300), ("few.txt", 9)):
        lines = [f"Say {name} and {number}" for number in range(count)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    a, b, c, few = (str(tmp_path / f"{name}.txt") for name in ("a", "b", "c", "few"))
    work = plan_costs("organism", target=a, baseline=b, calibrate=False).work
    assert (work.n_train, work.n_validation, work.n_more, work.answers) == (32, 8, 0, 40)
    mixed = plan_costs("organism", target=a, baseline=c, calibrate=False)
    assert (mixed.work.n_train, mixed.work.n_validation, mixed.work.n_more) == (80, 20, 32)
    assert mixed.step("judged answers").passes.low == 40 + 160
    assert [note for note in mixed.notes if "a.txt holds 40 prompts, of which 32 train and 8 validate" in note]
    with pytest.raises(UsageError, match="5 for training and 4 for validation are too few"):
        plan_costs("organism", target=few, baseline=c, calibrate=False)


@pytest.mark.parametrize(("wide", "said"), [(3e9, True), (1.2e9, False), (None, False)])
def test_a_processor_that_is_slow_in_the_models_dtype_is_told_of(
    wide: float | None, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Rates(flops=1e9, decode_flops=1e9, disk=1e9, disk_write=1e9, device="cpu", float32_flops=wide)
    monkeypatch.setattr("weight_edit.costs.plan.rates_of", lambda *_, **__: rates)
    found = plan_costs("organism", dtype="bfloat16")
    assert any("3.0 times as fast in float32 as in bfloat16" in note for note in found.notes) is said


def test_a_method_that_chooses_its_places_has_an_interval_of_candidates() -> None:
    found = plan_costs("organism", method="gradient", calibrate=False)
    assert found.work.candidates[0] == 1 < found.work.candidates[1]
    assert any("gradient chooses places by itself" in note for note in found.notes)
    assert plan_costs("organism", method="gradient", candidates=3, calibrate=False).work.candidates == (3, 3)


@pytest.mark.parametrize(
    ("filters", "source", "answers", "first"),
    [
        ("auto", "answers", 160, 32),
        ("auto", "difference", 0, 160),
        ("none", "answers", 20, 32),
        ("answers", "difference", 160, 32),
        ("first-token", "answers", 20, 160),
    ],
)
def test_prompts_are_answered_as_a_find_would(filters: str, source: str, answers: int, first: int) -> None:
    found = plan_costs("organism", filter_prompts=filters, tokens_from=source, n_answers=20, calibrate=False)
    assert (found.work.answers, found.work.first_tokens) == (answers, first)


def test_of_a_hub_model_no_weights_are_fetched(hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add("someone/model", folder("organism"))
    found = plan_costs("someone/model", tokens=20, calibrate=False)
    assert found.size.stored
    assert found.size.checkpoint_bytes == plan_costs("organism", tokens=20, calibrate=False).size.checkpoint_bytes
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_document_has_every_step_and_their_sum(call) -> None:
    found = call("plan", "organism", "--json", "--trials", "5", *FIXED).json
    assert found["estimate"] is True
    names = [step["name"] for step in found["steps"]]
    assert names[:5] == ["load", "judged answers", "first tokens", "activations", "selection"]
    assert "search" in names
    for key in ("flops", "bytes_read", "seconds"):
        for bound in ("low", "high"):
            assert found["total"][key][bound] == pytest.approx(sum(step[key][bound] for step in found["steps"]))
    assert found["memory"]["weights"] == found["size"]["parameter_bytes"]
    assert found["size"]["active_parameters"] < found["size"]["parameters"]
    assert found["rates"]["flops"] == 1e12
    json.dumps(found, allow_nan=False)


def test_a_device_that_is_not_here_can_be_planned_for_by_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = plan_costs("organism", device="cuda", flops=4e14, disk_rate=3e9, calibrate=False)
    here = plan_costs("organism", device="cpu", flops=4e14, disk_rate=3e9, calibrate=False)
    assert found.device == "cuda"
    assert found.memory.on_device == found.memory.total - found.memory.program - found.memory.activations
    assert found.memory.logits > here.memory.logits
    with pytest.raises(UsageError, match="torch sees no CUDA device"):
        plan_costs("organism", device="cuda", calibrate=False)


def test_without_rates_there_is_no_time(call) -> None:
    found = call("plan", "organism", "--json", "--no-calibrate", "--offload", "--processes", "2", "--quiet").json
    assert found["total"]["seconds"] is found["rates"] is None
    assert (found["offload"], found["processes"]) == (True, 2)
    assert found["memory"]["weights"] < found["size"]["parameter_bytes"]


def test_the_table_fits_80_columns(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = call("plan", "organism", "--confirm", "16", "--trials", "100", *FIXED).out
    lines = [line for line in page.splitlines() if line.startswith(("selection ", "confirmation ", "search ", "all "))]
    assert len(lines) == 4
    assert max(len(line) for line in page.splitlines()) <= 80
    assert "Everything below is an estimate" in page
    assert "Peak memory of the find" in page


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--tokens", "0"), "--tokens 0: must be at least 1"),
        (("--prefix-tokens", "99"), "--prefix-tokens 99: must be from 0 on and less than a prompt has"),
        (("--processes", "0"), "--processes 0: must be at least 1"),
        (("--flops", "0"), "--flops 0.0: must be above 0"),
        (("--disk-rate", "-1"), "--disk-rate -1.0: must be above 0"),
        (("--method", "mean-diff"), "mean-difference"),
    ],
)
def test_wrong_numbers_are_exit_code_2(call, args: tuple[str, ...], said: str) -> None:
    result = call("plan", "organism", "--no-calibrate", *args)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_model_that_is_not_understood_is_exit_code_3(call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}', encoding="utf-8")
    assert call("plan", tmp_path, "--no-calibrate").code == 3
