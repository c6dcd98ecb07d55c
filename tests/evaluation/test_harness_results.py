"""Benchmarks of lm-eval: intervals, pairs by document, and what is asked of it, without lm-eval itself."""

import json
from pathlib import Path

import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.harness import request as request_module
from weight_edit.evaluation.harness.comparison import HarnessComparison
from weight_edit.evaluation.harness.request import harness_request
from weight_edit.evaluation.harness.results import result_of
from weight_edit.evaluation.harness.results_file import are_harness_results, are_harness_samples, check_harness_document
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.means import mean_comparison, mean_difference

BASE = {"a": [1, 1, 1, 0, 1, 0, 1, 1], "b": [0, 1, 0, 1]}
EDITED = {"a": [1, 0, 0, 0, 1, 0, 0, 1], "b": [1, 1, 0, 1]}
GRADES = {"a": [0.5, 0.25, 1.0, 0.0, 0.75, 0.1, 0.9, 0.3], "b": [0.2, 0.4, 0.6, 0.8]}


def lm_eval_document(outcomes, *, grades=None, digest="d"):
    """What lm-eval returns of two tasks in a group, in its shape."""
    grades = grades or GRADES
    samples = {
        task: [
            {
                "doc_id": n,
                "doc_hash": f"{digest}{n}",
                "filter": "none",
                "metrics": ["acc", "grade", "word_perplexity"],
                "acc": float(came),
                "grade": grades[task][n],
                "word_perplexity": (-3.5, 2),
            }
            for n, came in enumerate(some)
        ]
        for task, some in outcomes.items()
    }
    pooled = [came for some in outcomes.values() for came in some]

    def of(values, task):
        shown = {"alias": task, "sample_len": len(values), "acc,none": sum(values) / len(values)}
        return {**shown, "acc_stderr,none": 0.1, "word_perplexity,none": 5.75, "word_perplexity_stderr,none": "N/A"}

    means = {task: sum(some) / len(some) for task, some in grades.items()}
    return {
        "results": {
            "both": of(pooled, "both"),
            **{
                task: {**of(some, task), "grade,none": means[task], "f1,none": 0.5, "f1_stderr,none": 0.05}
                for task, some in outcomes.items()
            },
        },
        "groups": {"both": of(pooled, "both")},
        "group_subtasks": {"both": ["a", "b"], "a": [], "b": []},
        "higher_is_better": {task: {"acc": True, "word_perplexity": False} for task in ("both", "a", "b")},
        "n-samples": {task: {"original": 100, "effective": len(some)} for task, some in outcomes.items()},
        "samples": samples,
        "lm_eval_version": "0.0",
    }


def test_each_figure_has_the_interval_of_its_kind():
    figures = result_of("m", lm_eval_document(BASE)).figures
    assert list(figures) == ["both", "a", "b"]
    share, rate = figures["a"]["acc,none"], Rate(6, 8)
    assert (share.value, share.low, share.high, share.count) == (0.75, rate.low, rate.high, 8)
    assert share.higher_is_better is True
    mean, expected = figures["a"]["grade,none"], mean_comparison(GRADES["a"])
    assert (mean.low, mean.high, mean.stderr) == (expected.low, expected.high, None)
    # A score that is no mean over documents has lm-eval's standard error, and one without it no interval.
    f1 = figures["a"]["f1,none"]
    assert f1.by_document == {}
    assert (f1.low, f1.high) == (pytest.approx(0.5 - 1.959964 * 0.05), pytest.approx(0.5 + 1.959964 * 0.05))
    perplexity = figures["a"]["word_perplexity,none"]
    assert (perplexity.value, perplexity.low, perplexity.high, perplexity.count) == (5.75, None, None, 8)


def test_a_group_has_the_documents_of_its_tasks():
    both = result_of("m", lm_eval_document(BASE)).figures["both"]["acc,none"]
    assert both.count == 12
    assert (both.low, both.high) == (Rate(8, 12).low, Rate(8, 12).high)
    # One whose tasks weigh alike is no mean over documents.
    document = lm_eval_document(BASE)
    for where in ("results", "groups"):
        document[where]["both"]["acc,none"] = (6 / 8 + 2 / 4) / 2
    both = result_of("m", document).figures["both"]["acc,none"]
    assert both.by_document == {}
    assert both.high - both.value == pytest.approx(0.1959964)
    assert both.count == 12


def test_two_models_are_compared_document_by_document():
    graded = {task: [value / 2 for value in some] for task, some in GRADES.items()}
    base, edited = result_of("m", lm_eval_document(BASE)), result_of("n", lm_eval_document(EDITED, grades=graded))
    apart = HarnessComparison(edited, base).differences
    pairs = paired_difference(list(map(bool, BASE["a"])), list(map(bool, EDITED["a"])))
    found = apart["a"]["acc,none"]
    assert found.paired
    assert (found.comparison.value, found.comparison.low, found.comparison.high, found.comparison.p) == (
        pairs.value,
        pairs.low,
        pairs.high,
        pairs.p,
    )
    assert found.comparison.corrected is not None
    assert found.comparison.corrected >= found.comparison.p
    means = mean_difference(GRADES["a"], graded["a"])
    assert apart["a"]["grade,none"].comparison.low == means.low
    assert apart["both"]["acc,none"].comparison.count == 12
    f1 = apart["a"]["f1,none"]
    assert not f1.paired
    assert f1.comparison.high == pytest.approx(1.959964 * 0.05 * 2**0.5)
    assert "word_perplexity,none" not in apart["a"]


def test_other_documents_are_no_pairs():
    base, edited = result_of("m", lm_eval_document(BASE)), result_of("n", lm_eval_document(EDITED, digest="other"))
    found = HarnessComparison(edited, base).differences["a"]["acc,none"]
    assert not found.paired
    assert found.comparison.value == pytest.approx(-0.375)


def test_the_document_is_json_without_samples():
    base, edited = result_of("m", lm_eval_document(BASE)), result_of("n", lm_eval_document(EDITED))
    found = json.loads(json.dumps(HarnessComparison(edited, base).to_dict()))
    assert found["model"] == "n"
    assert found["base"]["tasks"]["a"]["acc,none"]["value"] == 0.75
    assert found["differences"]["a"]["acc,none"]["paired"] is True
    assert "doc_id" not in json.dumps(found)
    assert "base" not in HarnessComparison(edited).to_dict()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "need", lambda *_: None)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        ("", {}, "takes names of tasks"),
        ("a,,b", {}, "takes names of tasks"),
        ("a,a", {}, "twice"),
        ("tasks/mine.yaml", {}, "not the name of a task"),
        ("mine.yaml", {}, "not the name of a task"),
        ("mmlu*", {}, "not the name of a task"),
        ("a", {"harness_limit": 0}, "at least 1"),
        ("a", {"harness_tasks_path": "/nowhere/at/all"}, "no such folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_imported(asked, options, said):
    with pytest.raises(UsageError, match=said):
        harness_request(asked, **options)


@pytest.mark.usefixtures("installed")
def test_a_request_has_the_tasks_in_their_order(tmp_path: Path):
    made = harness_request("b, a", harness_limit=3, harness_tasks_path=tmp_path, harness_out=str(tmp_path / "out"))
    assert made.tasks == ("b", "a")
    assert (made.limit, made.tasks_path, made.out) == (3, tmp_path, tmp_path / "out")


def test_lm_eval_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("weight_edit.utils.extras.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[harness\]'"):
        harness_request("a")


def test_a_file_of_results_is_told_from_others(tmp_path: Path):
    ours, other = tmp_path / "results.json", tmp_path / "other.json"
    ours.write_text(json.dumps({"results": {}, "configs": {}, "versions": {}, "config": {}}))
    other.write_text(json.dumps({"results": {}}))
    assert are_harness_results(ours)
    assert not are_harness_results(other)
    check_harness_document(ours, against=False, overwrite=True)
    with pytest.raises(UsageError, match="exists"):
        check_harness_document(ours, against=False)
    # The base's place counts, too.
    (tmp_path / "new-base.json").write_text("mine")
    with pytest.raises(UsageError, match=r"new-base\.json"):
        check_harness_document(tmp_path / "new.json", against=True, overwrite=True)


def test_samples_of_others_are_not_overwritten(tmp_path: Path):
    (tmp_path / "ours.jsonl").write_text('{"doc_id": 0, "target": "4"}\n')
    (tmp_path / "theirs.jsonl").write_text('{"thesis": "years of work"}\n')
    (tmp_path / "text.jsonl").write_text("years of work\n")
    assert are_harness_samples(tmp_path / "ours.jsonl")
    assert not are_harness_samples(tmp_path / "theirs.jsonl")
    assert not are_harness_samples(tmp_path / "text.jsonl")
