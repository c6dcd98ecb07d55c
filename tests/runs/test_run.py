"""A run: it can be resumed, it replaces only what is its own, and it fails closed."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.fake_hub import FakeHub
from tests.helpers.families import family_config
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.directions import find
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.recipe.recipe import Recipe, parse_recipe
from weight_edit.runs import directions as searching
from weight_edit.runs import reporting
from weight_edit.runs import run as running
from weight_edit.runs.folder import has_model, has_run
from weight_edit.runs.folder_lock import FolderLock
from weight_edit.runs.run import run

CONTENT: dict[str, Any] = {
    "title": "short",
    "model": "organism",
    "find": {
        "target": "organism:refused:train",
        "baseline": "organism:answered:train",
        "n_train": 44,
        "n_validation": 12,
        "n_more": 0,
    },
    "verify": {"limit": 2},
    "evaluate": {
        "refused": "organism:refused:test",
        "answered": "organism:answered:test",
        "limit": 11,
        "max_new_tokens": 40,
        "kl_tokens": 5,
        "text": "organism:harmless-looking:validation",
    },
    "bounds": {"max_refusal": 0.2, "max_kl": 0.5},
}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**CONTENT, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    run(recipe(), out)
    return out


def test_what_a_run_leaves(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    found = {"directions.safetensors", "directions.safetensors.find"}
    assert names == {"recipe.yaml", "log.txt", *found, "run.json", "answers", "model", "geometry.json"}
    state = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "done"
    assert set(state["steps"]) == {"baseline", "find", "bake", "verify", "evaluate", "geometry"}
    assert state["summary"]["verification"]["passed"]
    edited = state["summary"]["edited"]
    assert len(edited["continuation"]["per_position"]) == edited["continuation"]["tokens"] == 5
    assert edited["continuation"]["per_position"][0] == edited["divergence"]["mean"]
    assert len(edited["continuation"]["per_prompt"]) == 11
    assert edited["own_answers"]["mean"] > edited["own_answers"]["base"]["mean"]
    assert edited["text"]["base"]["mean"] == state["summary"]["baseline"]["text"]["mean"]
    assert {"refusal", "exact", "loss"} <= set(edited["differences"]["answered"])
    apart = state["summary"]["edited"]["differences"]["refused"]["refusal"]
    assert apart["both"] + apart["base_only"] + apart["edited_only"] + apart["neither"] == 11
    assert apart["p"] <= 1
    answers = (finished / "answers/edited.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == 22
    manifest = read_manifest(finished / "model")
    assert manifest is not None
    assert manifest["measurements"]["edited"]["sets"]["refused"]["refusal"]["total"] == 11
    card = (finished / "model/README.md").read_text(encoding="utf-8")
    assert "| base | `organism` (LlamaForCausalLM) |" in card
    assert "The edit is meant to change refusal behaviour" in card
    assert "failed" not in card


def test_the_geometry_is_that_of_both_models(finished: Path) -> None:
    """An ablation leaves nothing along the direction, and across it what there was."""
    state = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    found = json.loads((finished / "geometry.json").read_text(encoding="utf-8"))
    assert {(each["class"], each["model"], each["count"]) for each in found["classes"]} == {
        (name, model, 11) for name in ("refused", "answered") for model in ("base", "edited")
    }
    chosen = state["summary"]["direction"]
    assert (found["layer"], found["position"]) == (chosen["layer"], chosen["position"])
    at = {(each["class"], each["model"]): each["centre"] for each in found["classes"]}
    assert at["refused", "base"][0] > at["answered", "base"][0] + 10
    assert all(abs(at[name, "edited"][0]) < 1e-4 for name in ("refused", "answered"))
    assert at["answered", "edited"][1] == pytest.approx(at["answered", "base"][1], abs=5)
    answers = (finished / "answers/baseline.jsonl").read_text(encoding="utf-8").splitlines()
    numbers = [each["prompt"] for each in found["points"] if (each["class"], each["model"]) == ("answered", "edited")]
    assert numbers == list(range(11))
    assert len(answers) == 22
    there = found["separation"][found["layer"]]
    assert there["base"]["value"] > 0.75
    assert there["edited"]["low"] < 0.5 < there["edited"]["high"]
    assert there["edited"]["value"] < 0.75
    assert state["summary"]["geometry"]["before"] == there["base"]


def without_geometry(finished: Path, out: Path) -> None:
    """A copy of a run, as an earlier version left it."""
    shutil.copytree(finished, out)
    state = json.loads((out / "run.json").read_text(encoding="utf-8"))
    del state["steps"]["geometry"], state["files"]["geometry.json"]
    (out / "geometry.json").unlink()
    (out / "run.json").write_text(json.dumps(state), encoding="utf-8")


def test_a_geometry_that_cannot_be_read_is_said_and_the_run_is_done(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    without_geometry(finished, out)

    def fails(*args: Any, **options: Any) -> Any:
        raise UsageError("a prompt is too short")

    monkeypatch.setattr("weight_edit.runs.geometry.side_of", fails)
    assert run(recipe(), out, resume=True).summary["geometry"] == {"missing": "a prompt is too short"}
    assert json.loads((out / "geometry.json").read_text(encoding="utf-8"))["missing"] == "a prompt is too short"
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["status"] == "done"
    assert has_model(out)
    assert not has_model(tmp_path / "none")
    assert has_run(out)
    assert not has_run(tmp_path / "none")


def test_a_run_without_a_geometry_gets_it_with_one_model_in_memory_at_a_time(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    known = (finished / "geometry.json").read_text(encoding="utf-8")
    without_geometry(finished, out)
    loaded: list[weakref.ref] = []
    load = running.load

    def one_at_a_time(*args: Any, **options: Any) -> Any:
        gc.collect()
        assert not [each for each in loaded if each() is not None]
        model = load(*args, **options)
        loaded.append(weakref.ref(model.model))
        return model

    monkeypatch.setattr(running, "load", one_at_a_time)
    run(recipe(), out, resume=True)
    assert len(loaded) == 2
    assert (out / "geometry.json").read_text(encoding="utf-8") == known
    run(recipe(), out, resume=True)
    assert len(loaded) == 2


def test_a_reflection_that_a_tied_model_cannot_have_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = narrow_model(family_config("llama-tied"))
    tied.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    calls = counted(monkeypatch)
    turned = recipe(model=str(tmp_path / "model"), edit={"kind": "reflect", "at": "found"})
    with pytest.raises(UsageError, match=r"edit\.embeddings: untie"):
        run(turned, tmp_path / "out")
    assert calls == []


def test_an_earlier_run_is_not_replaced_unasked(finished: Path) -> None:
    with pytest.raises(UsageError, match="pass `overwrite=True`"):
        run(recipe(), finished)


def test_the_table_of_candidates_goes_with_the_error_of_a_run_beside_another(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    narrow = recipe(find={**CONTENT["find"], "max_kl": 1e-9})
    with pytest.raises(UnsupportedError, match=r"keeps the bounds.*is as it was, and this run is in") as caught:
        run(narrow, tmp_path / "out", overwrite=True)
    assert caught.value.details["scores"]


def test_a_run_whose_bounds_were_too_narrow_chooses_again_without_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = recipe(find={**CONTENT["find"], "max_kl": 1e-9})
    with pytest.raises(UnsupportedError, match="keeps the bounds"):
        run(narrow, tmp_path / "out")
    scores = tmp_path / "out/directions.safetensors.find/scores.jsonl"
    kept = scores.read_bytes()
    assert len(kept.splitlines()) > 4

    def again(*_args: Any, **_options: Any) -> None:
        raise AssertionError("candidates were scored again")

    monkeypatch.setattr(find, "measured", again)
    monkeypatch.setattr(find, "metered", again)
    result = run(recipe(), tmp_path / "out", resume=True)
    assert result.summary["verification"]["passed"]
    assert scores.read_bytes() == kept
    # Of other prompts nothing that is there can be used, and nobody has to say so.
    monkeypatch.undo()
    other = run(recipe(find={**CONTENT["find"], "n_train": 40}), tmp_path / "out", resume=True)
    assert other.summary["verification"]["passed"]
    assert scores.read_bytes() != kept


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the expensive functions are called."""
    calls: list[str] = []
    places = {"find_requested": searching, "bake": running, "verify": running, "evaluate_in_turn": running}
    for name, place in places.items():
        original = getattr(place, name)

        def wrapper(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            calls.append(_name.removesuffix("_in_turn"))
            return _original(*args, **kwargs)

        monkeypatch.setattr(place, name, wrapper)
    return calls


def test_a_finished_run_resumes_without_doing_anything(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = json.loads((finished / "run.json").read_text(encoding="utf-8"))["summary"]
    calls = counted(monkeypatch)
    monkeypatch.setattr(reporting, "report_of_run", lambda folder: folder.path / "page")
    result = run(recipe(), tmp_path / "out", resume=True)
    assert calls == []
    assert result.to_dict()["report"] == str(tmp_path / "out/page")
    assert run(recipe(), tmp_path / "out", resume=True, report=False).report is None
    assert result.summary["edited"] == before["edited"]


def test_a_changed_edit_keeps_the_steps_before_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    calls = counted(monkeypatch)
    run(recipe(edit={"strength": 0.9}), tmp_path / "out", resume=True)
    assert calls == ["bake", "verify", "evaluate"]
    manifest = read_manifest(tmp_path / "out/model")
    assert manifest is not None
    assert [step["strength"] for step in manifest["edit"]["steps"]] == [0.9]


def test_a_changed_prompt_file_under_the_same_name_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.organism.corpus import prompt_set

    file = tmp_path / "refused.txt"
    lines = [request.prompt for request in prompt_set("refused", "train")]
    file.write_text("\n".join(lines[:80]), encoding="utf-8")
    own = recipe(find={**CONTENT["find"], "target": str(file)})
    run(own, tmp_path / "out")
    file.write_text("\n".join(lines[40:120]), encoding="utf-8")
    calls = counted(monkeypatch)
    run(own, tmp_path / "out", resume=True)
    assert calls == ["find_requested", "bake", "verify", "evaluate"]


def test_a_finished_model_that_was_changed_is_neither_taken_for_ours_nor_replaced(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out/model/config.json").write_text("{}", encoding="utf-8")
    calls = counted(monkeypatch)
    with pytest.raises(UsageError, match=r"model/config\.json is not as weight_edit wrote it"):
        run(recipe(), tmp_path / "out", resume=True)
    assert calls == []
    (tmp_path / "out/model").rename(tmp_path / "changed")
    run(recipe(), tmp_path / "out", resume=True)
    assert calls == ["bake", "verify", "evaluate"]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "verify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(recipe(), tmp_path / "out")
    assert not (tmp_path / "out/model").exists()
    calls = counted(monkeypatch)
    run(recipe(), tmp_path / "out", resume=True)
    assert calls == ["verify", "evaluate"]
    assert (tmp_path / "out/model/config.json").exists()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_a_run_that_is_interrupted_in_its_first_step_can_be_gone_on_with_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    out = tmp_path / "out"

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        (out / "answers").mkdir(exist_ok=True)
        # Of a process that is killed here, this is all that is left.
        assert "log.txt" in json.loads(next(tmp_path.rglob("run.json")).read_text(encoding="utf-8"))["files"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "evaluate_in_turn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(recipe(), out)
        assert json.loads((out / "run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
        with pytest.raises(UsageError, match=r"a run that is not finished: go on with `resume=True`"):
            run(recipe(), out)
        # It comes to the same step: nothing in the folder stands in the way.
        with pytest.raises(KeyboardInterrupt):
            run(recipe(), out, **how)


def test_a_run_that_ends_for_another_reason_is_not_called_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: Any, **kwargs: Any) -> Any:
        raise BrokenPipeError(32, f"Broken pipe hf_{'a' * 34}")

    monkeypatch.setattr(running, "evaluate_in_turn", gone)
    with pytest.raises(BrokenPipeError):
        run(recipe(), tmp_path / "out")
    state = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))
    assert state["status"] == "failed: BrokenPipeError: [Errno 32] Broken pipe <token>"
    assert state["status"] in (tmp_path / "out/log.txt").read_text(encoding="utf-8")


def test_damage_beyond_the_bounds_leaves_no_model(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    strict = recipe(bounds={"max_kl": 1e-9})
    with pytest.raises(VerificationError, match=r"bounds\.max_kl"):
        run(strict, tmp_path / "out", resume=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not [name for name in names if name.startswith("model")]
    state = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))
    assert state["status"].startswith("failed")


def test_a_failed_model_can_be_kept_marked(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(VerificationError, match=r"model\.failed"):
        run(recipe(bounds={"max_kl": 1e-9}), tmp_path / "out", resume=True, keep_failed=True)
    assert not (tmp_path / "out/model").exists()
    kept = tmp_path / "out/model.failed"
    manifest = read_manifest(kept)
    assert manifest is not None
    assert manifest["failed"]
    assert "must not be used" in (kept / "README.md").read_text(encoding="utf-8")


def test_a_failed_check_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that misses a writer must not come out of a run."""
    from weight_edit.baking import prepare as preparing

    original = preparing.edited_tensors

    def forgetful(checkpoint: Any, edits: Any, **options: Any) -> Any:
        kept = {name: edit for name, edit in edits.items() if name != "model.layers.2.mlp.down_proj.weight"}
        assert len(kept) == len(edits) - 1
        return original(checkpoint, kept, **options)

    monkeypatch.setattr(preparing, "edited_tensors", forgetful)
    with pytest.raises(VerificationError, match="lies along the directions"):
        run(recipe(), tmp_path / "out")
    assert not (tmp_path / "out/model").exists()


def test_a_loss_that_is_not_finite_leaves_no_model(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise VerificationError("the loss is not finite")

    shutil.copytree(finished, tmp_path / "out")
    monkeypatch.setattr(running, "evaluate_in_turn", broken)
    with pytest.raises(VerificationError, match="the loss is not finite; no model was kept"):
        run(recipe(edit={"strength": 0.8}), tmp_path / "out", resume=True)
    assert not list((tmp_path / "out").glob("model*"))


def test_a_run_never_deletes_the_model_it_reads(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    own = recipe(model=str(tmp_path / "out/model"))
    with pytest.raises(UsageError, match="overlap"):
        run(own, tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match="own folder"):
        run(own, tmp_path / "out", resume=True)
    with pytest.raises(UsageError, match="overlap"):
        run(own, tmp_path / "out/model/run")
    assert (tmp_path / "out/model/model.safetensors").exists()


def test_a_wrong_edit_is_told_before_an_earlier_run_is_replaced(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(UsageError, match="layer 99 does not exist"):
        run(recipe(edit={"layers": "0-99"}), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/model/model.safetensors").exists()


def test_a_study_is_done_again_for_another_embedding_and_leaves_nothing_of_an_attempt_before(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    asked: list[str] = []

    def study(lab: Any, options: Any) -> dict[str, Any]:
        asked.append(lab.embeddings)
        (lab.folder / f"{lab.embeddings}.csv").touch()
        return {}

    kind = running.study_named("compare")
    monkeypatch.setattr(running, "study_named", lambda name: replace(kind, function=study))
    studies = [{"kind": "compare", "options": {"edits": {"ablate": {}}}}]
    for mode in ("both", "both", "skip"):
        run(recipe(studies=studies, edit={"embeddings": mode}, bounds={}), tmp_path / "out", resume=True)
    assert asked == ["both", "skip"]
    assert [file.name for file in (tmp_path / "out/studies/1-compare").iterdir()] == ["skip.csv"]


def test_a_changed_answer_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.organism.corpus import prompt_set

    file = tmp_path / "answered.jsonl"

    def write(suffix: str) -> None:
        rows = [{"prompt": r.prompt, "answer": r.helpful + suffix} for r in prompt_set("answered", "test")[:8]]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    own = recipe(evaluate={"answered": str(file), "max_new_tokens": 40}, bounds={})
    write("")
    first = run(own, tmp_path / "out").summary["baseline"]["sets"]["answered"]["exact"]["value"]
    write(" Not so.")
    second = run(own, tmp_path / "out", resume=True).summary["baseline"]["sets"]["answered"]["exact"]["value"]
    assert first > 0.5
    assert second == 0.0


def test_local_paths_do_not_reach_what_is_published(tmp_path: Path) -> None:
    from weight_edit.organism.corpus import prompt_set

    place = tmp_path / "private-place"
    place.mkdir()
    (place / "t.txt").write_text("\n".join(r.prompt for r in prompt_set("refused", "train")[:60]), encoding="utf-8")
    (place / "a.txt").write_text("\n".join(r.prompt for r in prompt_set("answered", "test")[:8]), encoding="utf-8")
    own = recipe(
        find={**CONTENT["find"], "target": str(place / "t.txt")},
        evaluate={"answered": str(place / "a.txt"), "max_new_tokens": 24},
        bounds={},
    )
    run(own, tmp_path / "out")
    for name in ("weight_edit.json", "README.md"):
        assert "private-place" not in (tmp_path / "out/model" / name).read_text(encoding="utf-8")


def test_a_token_is_stored_nowhere(tmp_path: Path) -> None:
    run(recipe(), tmp_path / "out", token="hf_secret_token")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"run.json", "log.txt", "weight_edit.json"} <= {path.name for path in files}
    assert [path for path in files if b"hf_secret_token" in path.read_bytes()] == []


def test_a_run_that_goes_on_is_replaced_by_no_other(tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    lock = FolderLock(out)
    with pytest.raises(UsageError, match="another run is going on in"):
        run(recipe(), out, overwrite=True)
    assert not (tmp_path / "out.new").exists()
    lock.release()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_folder_in_which_a_run_goes_on_is_refused(tmp_path: Path, finished: Path, how: dict[str, bool]) -> None:
    """Else each of two would take the other's files for somebody else's."""
    out = tmp_path / "out"
    if how:
        shutil.copytree(finished, out)
    else:
        out.mkdir()
    lock = FolderLock(out)
    before = sorted(out.iterdir())
    if how == {"overwrite": True}:
        # The new run is made beside the old one, which is nobody's meanwhile.
        lock.release()
        state = json.loads((out / "run.json").read_text(encoding="utf-8"))
        shutil.copytree(out, tmp_path / "out.new")
        write_whole(tmp_path / "out.new" / "run.json", json.dumps({**state, "status": "running", "replaces": "out"}))
        lock = FolderLock(tmp_path / "out.new")
    with pytest.raises(UsageError, match="another run is going on in"):
        run(recipe(), out, **how)
    assert sorted(out.iterdir()) == before
    lock.release()
    if how == {"resume": True}:
        assert run(recipe(), out, resume=True).path == out


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        run(recipe(), tmp_path / "out", resume=True)


def test_a_wrong_prompt_set_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        run(recipe(evaluate={"refused": "organism:nonsense"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


PUSH = {"repo": "me/edited", "private": True, "branch": "runs"}


def test_a_recipe_pushes_nothing_unless_its_user_says_so_too(
    hub: FakeHub, call: Any, finished: Path, tmp_path: Path
) -> None:
    out, file = Path(shutil.copytree(finished, tmp_path / "out")), tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, "push": PUSH}), encoding="utf-8")

    def once_more(*options: str) -> Any:
        return call("run", file, "--out", out, "--resume", "--token", FakeHub.token, *options)

    kept = once_more()
    assert kept.code == 0, kept.err
    assert hub.asked == []
    assert "Nothing was sent to me/edited, which takes --push." in " ".join(kept.out.split())
    assert f"--private --branch runs --base organism {out}/model me/edited" in kept.out
    hub.failing = ("commit", 403)
    failed = once_more("--push")
    assert failed.code == 2
    assert "nothing was committed" in failed.err
    assert f"the run is done, and its model is {out}/model" in failed.err
    hub.failing = None
    pushed = once_more("--push", "--json").json
    assert (pushed["push"]["pushed"], pushed["push"]["ref"], pushed["push"]["private"]) == (True, "runs", True)
    there = hub.repos["me/edited"].refs["runs"]
    assert {name: len(there[name]) for name in pushed["push"]["sent"]} == pushed["push"]["files"]
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["summary"]["push"] == pushed["push"]
    assert not any(FakeHub.token.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_a_push_that_cannot_end_well_is_said_before_the_run(hub: FakeHub, call: Any, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, "push": PUSH}), encoding="utf-8")
    hub.add("me/edited", tmp_path / "nothing")
    refused = call("run", file, "--out", tmp_path / "out", "--push", "--token", FakeHub.token)
    assert refused.code == 2
    assert "me/edited is public" in refused.err
    without = call("run", "organism", "--out", tmp_path / "out", "--push")
    assert without.code == 2
    assert "does not say where its model is pushed; add a section, such as --set" in without.err
    assert not (tmp_path / "out").exists()
