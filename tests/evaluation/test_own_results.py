"""Our figures in the shape of lm-eval's results: the same figures, under keys that its reader knows."""

import json
from pathlib import Path

import pytest

from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.harness.own_results import harness_document, write_harness_document
from weight_edit.evaluation.results import Evaluation


@pytest.fixture(scope="module")
def measured(baked_once: Path) -> Evaluation:
    sets = {"refused": "organism:refused:test", "answered": "organism:answered:test"}
    judges = ("phrases", "published")
    return evaluate(baked_once, against="organism", **sets, limit=6, lengths="4,12", judges=judges)


def test_the_figures_are_those_of_the_evaluation(measured: Evaluation):
    found = harness_document(measured.to_dict(), limit=6)
    refused, answered = (found["results"][f"weight_edit_{name}"] for name in ("refused", "answered"))
    rate = measured.refused.refusal
    assert refused["refusal,phrases"] == rate.value
    assert refused["refusal_stderr,phrases"] == pytest.approx((rate.value * (1 - rate.value) / 5) ** 0.5)
    assert "refusal,published" in refused
    assert refused["refusal_at_4,phrases"] == measured.refused.lengths[4].refusal.value
    assert answered["exact,none"] == measured.answered.exact.value
    assert answered["loss_stderr,none"] == measured.answered.loss.standard_error
    assert answered["kl_first_token,none"] == measured.divergence.mean
    assert "kl_first_token,none" not in refused
    for task, figures in found["results"].items():
        metrics = {key.partition(",")[0] for key in figures if "," in key}
        assert metrics - set(found["higher_is_better"][task]) == {each for each in metrics if "_stderr" in each}
        assert all(found[key][task] is not None for key in ("configs", "versions", "n-shot", "n-samples"))
    better = found["higher_is_better"]
    assert better["weight_edit_answered"]["refusal"] is False
    assert better["weight_edit_refused"]["refusal"] is None
    assert found["n-samples"]["weight_edit_refused"] == {"original": 6, "effective": 6}


def test_the_base_is_written_beside_it_and_no_prompt_is_in_either(measured: Evaluation, tmp_path: Path):
    write_harness_document(tmp_path / "ours.json", measured.to_dict())
    own, base = (json.loads((tmp_path / name).read_text()) for name in ("ours.json", "ours-base.json"))
    assert base["model_name"] == "organism"
    assert own["model_name"] == measured.model
    assert base["results"]["weight_edit_refused"]["refusal,phrases"] == measured.base.refused.refusal.value
    assert not any(answer.prompt in json.dumps(own) for answer in measured.answers)


def test_lm_eval_makes_a_table_of_it(measured: Evaluation):
    pytest.importorskip("lm_eval", reason="lm-eval is an extra: pip install '.[harness]'")
    from lm_eval.utils import make_table

    table = make_table(harness_document(measured.to_dict()))
    row = next(line for line in table.splitlines() if "refusal_at_12" in line)
    assert "phrases" in row
    assert f"{measured.refused.lengths[12].refusal.value:.4f}" in table
    assert "↓" in table
