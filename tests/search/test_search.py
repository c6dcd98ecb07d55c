"""A whole search on the embedded model: its front, its recipes, and that it goes on where it was stopped."""

import json
import shutil
from dataclasses import replace
from threading import Timer

import pytest

from tests.helpers.search_samples import organism
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runtime.loading import load
from weight_edit.search import folder
from weight_edit.search import search as verb
from weight_edit.search.descent import descend
from weight_edit.search.folder import RESULT, check_search_folder
from weight_edit.search.front import dominates
from weight_edit.search.point import Point
from weight_edit.search.race import race
from weight_edit.search.request import SearchRequest
from weight_edit.search.search import search_edits
from weight_edit.studies.lab import edit_step


def request(**others) -> SearchRequest:
    find = FindRequest.read(
        target="organism:refused:train",
        baseline="organism:answered:train",
        validation_target="organism:refused:validation",
        validation_baseline="organism:answered:validation",
        n_train=24,
        n_validation=12,
        n_answers=16,
    )
    given = {
        "n_train": 12,
        "n_validation": 8,
        "trials": 6,
        "generation": 4,
        "descents": 2,
        "descent": {"steps": 4, "prices": (0.1, 1.0), "refresh": 3, "directions": 2},
        "judged": 10,
        "finalists": 3,
        "lengths": (16, 32),
        **others,
    }
    return SearchRequest(find=find, **given)


def told_of(result) -> dict:
    """What a search says, but for times."""
    said = result.to_dict()
    for each in (*said["front"], *said["others"], said["plain"]):
        each.pop("recipe")
    return {key: value for key, value in said.items() if key not in ("path", "seconds")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return search_edits(organism(), request(), out=tmp_path_factory.mktemp("search") / "out")


def test_the_front_is_of_judged_points_that_none_beats(done):
    assert done.front
    places = [each.place for each in done.front]
    assert [each.damage for each in places] == sorted(each.damage for each in places)
    judged = [each for each in (done.plain, *done.front) if tuple(each.judged.sets["refused"].verdicts) == (16, 32)]
    assert len(judged) == 1 + len(done.front)
    for one in judged:
        assert not any(dominates(one.place.objectives, each.objectives) for each in places)
    assert done.chosen.place.refusal <= 0.05
    assert done.plain.point.origin == "published: full ablation"
    assert done.plain.place.refusal == 0


def test_the_cheap_score_is_held_against_the_judge(done):
    assert done.tau.n == 10
    assert done.tau.value > 0.4
    assert len(done.candidates) > 6 + 2 * 2
    assert {each.point.origin for each in done.candidates} >= {"sampler", "descent"}
    assert done.sketch_tau.n == 10
    drawn = [each for each in done.candidates if each.point.origin == "sampler"]
    assert len(drawn) == 6
    assert all(each.sketch is not None for each in drawn)
    scored = [each.score for each in done.candidates if each.score is not None]
    assert 10 < len(scored) < len(done.candidates)
    assert {each.ratios.shape for each in scored} == {scored[0].ratios.shape}
    assert done.facts["costs"]["rungs"][0]["asked"] == 8
    assert done.facts["texts"]


def test_a_recipe_makes_its_point_again_to_the_bit(done):
    assert len({each.recipe for each in done.front}) == len(done.front)
    for each in done.front:
        assert each.recipe.stat().st_size < 10_000
        recipe = load_recipe(each.recipe)
        assert recipe.model == "organism"
        step = edit_step(recipe.edit, each.point.step.directions)
        again = Point(rows=each.point.rows, strengths=each.point.strengths, keep_norms=each.point.keep_norms)
        assert again.digest == each.point.digest
        n_layers = each.point.strengths.n_layers
        for layer in range(n_layers):
            for role in ("attention", "mlp"):
                expected = getattr(each.point.strengths, role)[layer]
                factor = 1.0 if step.kernel is None else step.kernel.at(role, layer, n_layers)
                assert step.strength * factor == expected


def test_another_rule_costs_nothing(done, monkeypatch):
    for name in ("race", "descend", "judged_points", "made_texts", "find_requested", "Scorer"):
        monkeypatch.setattr(verb, name, lambda *_, **__: pytest.fail("something was done again"))
    again = search_edits(organism(), request(pick="1"), out=done.path, resume=True)
    assert again.picked.point == again.front[0].place
    assert [each.point.digest for each in again.front] == [each.point.digest for each in done.front]


def test_what_was_found_is_written_where_the_rule_names_no_point_of_it(done, tmp_path):
    shutil.copytree(done.path, tmp_path / "out")
    with pytest.raises(UsageError, match="the front has"):
        search_edits(organism(), request(pick="99"), out=tmp_path / "out", resume=True)
    written = json.loads((tmp_path / "out" / RESULT).read_text())
    assert (written["status"], len(written["front"])) == ("done", len(done.front))


def test_a_search_that_is_done_goes_further_when_it_is_asked_for_more(done, tmp_path, monkeypatch):
    shutil.copytree(done.path, tmp_path / "out")
    raced, descended = [], []
    monkeypatch.setattr(verb, "race", lambda *given, **how: raced.append(given[1]) or race(*given, **how))
    monkeypatch.setattr(verb, "descend", lambda *given, **how: descended.append(given[1]) or descend(*given, **how))
    monkeypatch.setattr(verb, "find_requested", lambda *_, **__: pytest.fail("directions were found again"))
    more = search_edits(organism(), request(trials=10, descents=3), out=tmp_path / "out", resume=True)
    assert {each.point.digest for each in more.candidates} >= {
        each.point.digest for each in done.candidates if each.point.origin == "sampler"
    }
    assert len([each for each in more.candidates if each.point.origin == "sampler"]) == 10
    assert 0 < sum(map(len, raced)) <= 4 + 2
    assert descended


def test_what_was_judged_at_length_is_told_at_length(done):
    assert {each.tokens for each in done.front} == {32}
    assert {each.tokens for each in done.others} <= {16, 32}
    judged = len([each for each in (*done.front, *done.others) if each.tokens == 32])
    assert judged >= min(3, len(done.front))
    assert done.plain.tokens == 32
    assert len(done.front) + len(done.others) == 10


def test_descents_that_cannot_run_are_refused_before_anything_is_done(tmp_path):
    with pytest.raises(UnsupportedError, match="without descents"):
        search_edits(load("organism", offload=True), request(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop", [2, 9, 14])
def test_a_search_that_was_stopped_goes_on_to_the_same_end(done, tmp_path, stop):
    calls = 0

    def stopped(_):
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_edits(organism(), request(), out=tmp_path / "out", told=stopped)
    assert json.loads((tmp_path / "out" / RESULT).read_text())["status"] == "running"
    again = search_edits(organism(), request(), out=tmp_path / "out", resume=True)
    assert told_of(again) == told_of(done)


def test_what_is_still_refused_gives_a_further_direction(tmp_path):
    descent = {"steps": 2, "prices": (1.0,), "directions": 1}
    asked = request(trials=0, descents=1, rounds=1, descent=descent, judged=8, lengths=(64,))
    found = search_edits(organism("organism-defended"), asked, out=tmp_path / "out")
    further = [each for each in found.candidates if each.point.origin == "further direction"]
    assert len(further) == 1
    assert further[0].point.facts["still_refused"] > 0
    after = [each for each in found.candidates if each.point.facts.get("start") == further[0].point.digest]
    assert [len(each.point.rows) for each in after] == [len(further[0].point.rows)] * 2


def test_nothing_that_is_not_a_search_is_written_into(done, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no search"):
        search_edits(organism(), request(), out=tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="holds an earlier search"):
        search_edits(organism(), request(), out=done.path)
    with pytest.raises(UsageError, match="made with other `tokens`"):
        search_edits(organism(), request(tokens=7), out=done.path, resume=True)
    asked = request()
    for change, name in (
        ({"n_train": 23}, "n_train of the find"),
        ({"judge": "published"}, "judge"),
        ({"rule": SelectionRule(max_kl=0.5)}, "bounds of the find"),
    ):
        with pytest.raises(UsageError, match=f"made with other .?{name}"):
            search_edits(organism(), replace(asked, find=replace(asked.find, **change)), out=done.path, resume=True)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_one_set_of_target_prompts_is_searched_with():
    asked = request()
    find = replace(asked.find, target=asked.find.target * 2, validation_target=asked.find.validation_target * 2)
    with pytest.raises(UsageError, match="one set of target prompts"):
        replace(asked, find=find)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("judged", 2, "judged=2"),
        ("descent", {"seed": 1}, "its seed is the search's own"),
        ("sampler", "guess", "guess"),
        ("lengths", (64, 32), "grow"),
        ("trials", -1, "trials"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(setting, value, message):
    with pytest.raises(UsageError, match=message):
        request(**{setting: value})


def test_processes_that_begin_at_the_same_moment_share_the_folder(tmp_path, monkeypatch):
    place = tmp_path / "out"
    checked = folder.check_output

    def overtaken(path, **options):
        # Another process makes the folder between two looks at it; its record is not whole yet.
        place.mkdir()
        (place / ".weight_edit-0.partial").write_text("")
        monkeypatch.setattr(folder, "check_output", checked)
        Timer(0.2, lambda: (place / ".weight_edit-0.partial").rename(place / RESULT)).start()
        (place / ".weight_edit-0.partial").write_text('{"weight_edit": "1", "files": {}}')
        return checked(path, **options)

    monkeypatch.setattr(folder, "check_output", overtaken)
    assert check_search_folder(place, source=None, resume=True, overwrite=False)
    monkeypatch.setattr(folder, "check_output", checked)
    with pytest.raises(UsageError, match="holds an earlier search"):
        check_search_folder(place, source=None, resume=False, overwrite=False)
