"""What a search keeps as it comes: gone on with, chosen from again without a pass, refused where it is another's."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.helpers.alike import alike
from weight_edit.directions import find, metering
from weight_edit.directions import problem as problems
from weight_edit.directions import scores as scoring
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.file import folder_of
from weight_edit.directions.find import find_directions
from weight_edit.directions.find_folder import SCORES, SEARCH, Metering, Searched, SearchFolder
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.scores import CandidateScore, Similarity
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UnsupportedError, UsageError

FREE = SelectionRule(max_kl=None, min_induce=None)
STRICT = SelectionRule(max_kl=1e-9, min_induce=None)
SIZES = {"n_train": 24, "n_validation": 8}


def run(found, folder, **options):
    given = {"refusal_tokens": found.tokens, "rule": FREE, **SIZES, "scores": folder, "n_more": 0, **options}
    return find_directions(found.model, found.target, found.baseline, **given)


def lines(folder):
    return [json.loads(line) for line in (folder / SCORES).read_text(encoding="utf-8").splitlines()]


def scored(folder):
    """(score, number) pairs in the order in which they were measured."""
    return [
        (name, row["candidate"])
        for row in lines(folder)
        if "values" in row and "control" not in row
        for name in row["values"]
    ]


@pytest.fixture
def no_passes(monkeypatch):
    """From here on nothing runs the model."""

    def refuse(*_args, **_options):
        raise AssertionError("a forward pass")

    def switch():
        for module, name in (
            (metering, "next_token_logprobs"),
            (scoring, "next_token"),
            (problems, "residuals_under"),
            (problems, "mean_residuals"),
        ):
            monkeypatch.setattr(module, name, refuse)

    return switch


def test_scores_are_kept_where_no_candidate_passes_and_other_bounds_need_the_rest_alone(behaviour, tmp_path, no_passes):
    found, folder = behaviour("llama"), tmp_path / "d.find"
    with pytest.raises(UnsupportedError) as caught:
        run(found, folder, rule=STRICT)
    table = caught.value.details["scores"]
    assert all(row["rejected"] for row in table)
    excesses = [row["kl"] for row in table if row["kl"] is not None]
    assert excesses == sorted(excesses)
    assert len(excesses) == 4
    assert {(row["stage"], row["bypass"], row["induce"]) for row in table if row["kl"] is not None} == {
        ("kl", None, None)
    }
    before = scored(folder)
    assert {name for name, _ in before} == {"kl"}
    assert len(before) == 4
    fresh = run(found, None)
    again = run(found, folder, resume=True)
    # What the looser bounds need and was not measured is measured, and nothing twice.
    after = scored(folder)
    assert after[:4] == before
    assert sorted(name for name, _ in after[4:]) == ["bypass"] * 4 + ["induce"]
    assert torch.equal(again.direction, fresh.direction)
    assert torch.equal(again.candidates, fresh.candidates)
    for name, tensor in fresh.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-6, atol=1e-7)
    apart = {"rule", "control"}
    assert alike(*({k: v for k, v in each.metadata.items() if k not in apart} for each in (again, fresh)))
    assert again.metadata["control"]["bypass"] == pytest.approx(fresh.metadata["control"]["bypass"], abs=1e-5)
    no_passes()
    assert run(found, folder, resume=True).metadata == again.metadata
    # A narrower layer limit chooses of what is there as well.
    lower = run(found, folder, resume=True, rule=SelectionRule(max_kl=None, min_induce=None, max_layer_fraction=0.5))
    assert lower.metadata["layer"] == 1
    with pytest.raises(AssertionError, match="a forward pass"):
        run(found, None)


@pytest.mark.parametrize(("family", "stop"), [("llama", 2), ("llama", 6), ("gemma3", 2)])
def test_an_interrupted_search_goes_on_where_it_was(behaviour, tmp_path, monkeypatch, family, stop):
    # In the midst of the first stage, and of the next.
    found, folder = behaviour(family), tmp_path / "d.find"
    note = SearchFolder.note_scores

    def interrupt(self, number, values):
        note(self, number, values)
        if len(scored(folder)) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(SearchFolder, "note_scores", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(found, folder)
    monkeypatch.setattr(SearchFolder, "note_scores", note)
    before = scored(folder)
    assert len(before) == stop
    with (folder / SCORES).open("a", encoding="utf-8") as file:
        file.write('{"candidate": 7, "posit')
    resumed = run(found, folder, resume=True)
    after = scored(folder)
    assert after[:stop] == before
    assert len(after) == len(set(after))
    fresh = run(found, None)
    assert torch.equal(resumed.direction, fresh.direction)
    assert alike(resumed.metadata, fresh.metadata)


def test_layers_that_are_out_are_not_scored_and_a_wider_limit_scores_those_alone(behaviour, tmp_path):
    found, folder = behaviour("llama"), tmp_path / "d.find"
    record = run(found, folder, rule=SelectionRule(max_kl=None, min_induce=None, max_layer_fraction=0.5)).metadata
    layers = [row["layer"] for row in record["scores"]]
    first = scored(folder)
    assert first
    assert all(layers[number] < 2 for _, number in first)
    assert all(row["kl"] is None for row in record["scores"] if row["layer"] >= 2)
    assert {(row["rejected"], row["stage"]) for row in record["scores"] if row["layer"] == 3} == {
        ("layer 3 above 1", "place")
    }
    run(found, folder, resume=True, rule=SelectionRule(max_kl=None, min_induce=None, max_layer_fraction=1.0))
    rest = scored(folder)[len(first) :]
    assert {layers[number] for name, number in rest if name == "kl"} == {2, 3}
    assert not set(rest) & set(first)


def test_a_method_that_searches_where_it_may_is_searched_anew_for_another_limit(behaviour, tmp_path):
    found, folder = behaviour("llama"), tmp_path / "d.find"
    options = {"method": "inlp", "options": {"rounds": 1}}
    run(found, folder, **options)
    run(found, folder, resume=True, rule=SelectionRule(max_kl=2.0, min_induce=None), **options)
    with pytest.raises(UsageError, match="made with other `max_layer_fraction`"):
        run(found, folder, resume=True, rule=SelectionRule(max_kl=None, max_layer_fraction=0.5), **options)


def test_cosmic_scores_are_kept_too(behaviour, tmp_path, no_passes):
    found, folder = behaviour("llama"), tmp_path / "d.find"
    rule = SelectionRule(max_kl=None, min_induce=None, select="cosmic")
    fresh = run(found, folder, rule=rule, refusal_tokens=None)
    no_passes()
    again = run(found, folder, rule=rule, refusal_tokens=None, resume=True)
    assert again.metadata["scores"] == fresh.metadata["scores"]
    assert any(row["cosmic"] is not None for row in again.metadata["scores"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "`seed` (0 there, 1 here)"),
        ({"n_validation": 6}, "`n_validation` ("),
        ({"method": "pca"}, "`method` (mean-difference there, pca here), `options`"),
        ({"filter_prompts": False}, "`filter_prompts` (first-token there, none here)"),
        ({"positions": "last"}, "`positions` (template there, last here)"),
        ({"refusal_tokens": [3]}, "refusal tokens"),
    ],
)
def test_another_search_is_refused_by_name(behaviour, tmp_path, change, named):
    found, folder = behaviour("llama"), tmp_path / "d.find"
    request = FindRequest(
        target=(found.target,), baseline=found.baseline, refusal_tokens=found.tokens, rule=FREE, **SIZES
    )
    asked = find.search_inputs(
        request,
        model=find.model_digest(found.model),
        dtype="float32",
        chat_format=[list(find.ChatFormat(found.model.tokenizer).encode(prompt)) for prompt in find.SENTINELS[:2]],
    )
    SearchFolder.open(folder, asked).note_metering(Metering(tokens=(1,), keep=(), means={}))
    with pytest.raises(UsageError, match=re.escape(f"of another search, made with other {named}")):
        run(found, folder, resume=True, **change)
    with pytest.raises(UsageError, match=r"`resume=True` goes on with it"):
        run(found, folder)


def test_weights_in_memory_tell_models_apart(small_model):
    assert find.model_digest(small_model("llama")) != find.model_digest(small_model("gemma3"))


def test_only_what_is_ours_is_replaced(tmp_path):
    folder = tmp_path / "d.find"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match="is no folder of a search"):
            SearchFolder.open(folder, {"seed": 0}, **options)
    (folder / "mine.txt").unlink()
    kept = SearchFolder.open(folder, {"seed": 0})
    kept.note_metering(Metering(tokens=(1,), keep=(), means={}))
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    outside = tmp_path / "outside"
    outside.write_text("outside", encoding="utf-8")
    (folder / SCORES).symlink_to(outside)
    with pytest.raises(UsageError, match=SCORES):
        kept.note_scores(0, {"kl": (0.1,)})
    before = (folder / "search.json").read_bytes()
    anew = SearchFolder.open(folder, {"seed": 1}, overwrite=True)
    assert (folder / "search.json").read_bytes() == before
    anew.note_metering(Metering(tokens=(1,), keep=(), means={}))
    assert not (folder / SCORES).is_symlink()
    assert outside.read_text(encoding="utf-8") == "outside"
    assert (folder / "mine.txt").exists()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="is no folder, so what is found cannot be kept"):
        SearchFolder.open(tmp_path / "link", {"seed": 1}, resume=True)


@pytest.mark.parametrize("gone", [1, 2])
def test_a_search_that_is_killed_while_it_clears_an_earlier_one_can_be_begun_anew(tmp_path, monkeypatch, gone):
    folder = tmp_path / "d.find"
    kept = SearchFolder.open(folder, {"seed": 0})
    kept.note_metering(Metering(tokens=(1,), keep=(), means={}))
    kept.note_scores(0, {"kl": (0.1,)})
    unlink, calls = Path.unlink, []

    def killed(path, **options):
        calls.append(path)
        if len(calls) > gone:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            SearchFolder.open(folder, {"seed": 1}, overwrite=True).note_metering(
                Metering(tokens=(1,), keep=(), means={})
            )
    anew = SearchFolder.open(folder, {"seed": 1}, overwrite=True)
    anew.note_metering(Metering(tokens=(1,), keep=(), means={}))
    assert SearchFolder.open(folder, {"seed": 1}, resume=True).scores == {}


def test_what_is_written_is_what_is_read(tmp_path):
    folder = folder_of(tmp_path / "d.safetensors")
    assert folder.name == "d.safetensors.find"
    kept = SearchFolder.open(folder, {"seed": 0})
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    candidates = [
        Candidate(position=None, layer=1, rows=rows, vector=rows[0], tensors={"left": rows}, facts={"accuracy": 0.5}),
        Candidate(position=-1, layer=None, rows=rows[:1]),
    ]
    means = torch.randn(2, 4, 8, generator=generator, dtype=torch.float64)
    kept.note_searched(
        Searched(
            candidates=candidates,
            separations=[None, None],
            target_mean=means,
            baseline_mean=means + 1,
            positions=(None, -1),
            facts={"method": "x"},
            warnings=("so",),
        )
    )
    kept.note_scores(0, {"kl": (math.inf, 0.5)})
    kept.note_scores(0, {"bypass": (math.nan, 1.0), "induce": (-1.0, 2.0)})
    kept.note_similarity(0, Similarity(ablated=-0.25, added=0.5))
    kept.note_control(CandidateScore(position=None, layer=1, bypass=0.1, induce=0.2, kl=0.3, norm=1.0))
    read = SearchFolder.open(folder, {"seed": 0}, resume=True)
    assert read.searched is not None
    for was, found in zip(candidates, read.searched.candidates, strict=True):
        assert torch.equal(was.rows, found.rows)
        assert (was.position, was.layer, was.facts) == (found.position, found.layer, found.facts)
        assert (was.vector is None) == (found.vector is None)
        assert set(was.tensors) == set(found.tensors)
    assert torch.equal(read.searched.baseline_mean, means + 1)
    assert (read.searched.positions, read.searched.warnings) == ((None, -1), ("so",))
    assert repr(read.scores) == repr(kept.scores)
    assert (read.similarities, read.controls) == (kept.similarities, kept.controls)
    assert read.scores[0]["kl"] == (math.inf, 0.5)
    first, second = read.table(4)
    assert (first.kl, first.induce, first.cosmic, first.rank) == (math.inf, 0.5, 0.25, 2)
    assert math.isnan(first.bypass)
    assert (second.kl, second.bypass) == (None, None)


def test_scores_of_a_line_with_all_of_them_are_read(tmp_path):
    """Before selection went in stages, a candidate's scores were one line, with their means."""
    folder = tmp_path / "d.find"
    kept = SearchFolder.open(folder, {"seed": 0})
    rows = torch.ones(1, 8, dtype=torch.float64)
    means = torch.zeros(1, 4, 8, dtype=torch.float64)
    kept.note_searched(
        Searched(
            candidates=[Candidate(position=-1, layer=1, rows=rows)],
            separations=[None],
            target_mean=means,
            baseline_mean=means,
            positions=(-1,),
            facts={},
            warnings=(),
        )
    )
    values = {"bypass": (-1.0, -2.0), "induce": (1.0, 0.0), "kl": (0.25, 0.75)}
    score = CandidateScore(position=-1, layer=1, bypass=-1.5, induce=0.5, kl=0.5, norm=1.0, values=values)
    (folder / SCORES).write_text(json.dumps({"candidate": 0, **asdict(score)}) + "\n", encoding="utf-8")
    read = SearchFolder.open(folder, {"seed": 0}, resume=True)
    assert read.scores == {0: values}
    assert (read.table(4)[0].bypass, read.table(4)[0].kl) == (-1.5, 0.5)


def test_a_search_that_fails_before_anything_is_found_leaves_nothing(behaviour, tmp_path):
    found = behaviour("llama")
    with pytest.raises(UsageError, match="are too few"):
        find_directions(found.model, found.target.take(5), found.baseline, scores=tmp_path / "d.find")
    with pytest.raises(UsageError, match="refuses only 0 of 24 for training"):
        # Ordinary prompts as targets: none of them counts.
        find_directions(
            found.model, found.baseline, found.target, refusal_tokens=found.tokens, scores=tmp_path / "d.find", **SIZES
        )
    assert not list(tmp_path.iterdir())


def test_a_mean_of_no_prompts_is_kept_and_read(tmp_path):
    said = Metering(tokens=(1,), keep=(((False,), (True,)),), means={"target": math.nan, "baseline": -3.0})
    SearchFolder.open(tmp_path / "d.find", {"seed": 0}).note_metering(said)
    read = SearchFolder.open(tmp_path / "d.find", {"seed": 0}, resume=True)
    assert repr(read.metering) == repr(said)


@pytest.mark.parametrize("how", [{"overwrite": True}, {"resume": True}, {}])
def test_the_half_of_a_first_file_that_a_killed_search_left_is_begun_anew_in(
    tmp_path: Path, how: dict[str, bool]
) -> None:
    folder = tmp_path / "d.find"
    folder.mkdir()
    half = folder / ".weight_edit-0123456789abcdef.partial"
    half.write_text('{"inputs": {')
    kept = SearchFolder.open(folder, {}, **how)
    kept.note_answers({})
    assert not half.exists()
    assert (folder / SEARCH).exists()


@pytest.mark.parametrize("name", ["notes.txt", ".weight_edit-mine.partial"])
def test_what_is_somebodys_beside_the_half_of_a_first_file_stays(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "d.find"
    folder.mkdir()
    half, mine = folder / ".weight_edit-0123456789abcdef.partial", folder / name
    half.write_text("{")
    mine.write_text("mine")
    with pytest.raises(UsageError, match="no folder of a search"):
        SearchFolder.open(folder, {}, overwrite=True)
    assert half.exists()
    assert mine.read_text() == "mine"
