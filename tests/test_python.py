"""The package as it is used in Python: names, paths and objects everywhere, short results, a switch for progress."""

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import weight_edit
from weight_edit import (
    Directions,
    Model,
    PromptSet,
    RunResult,
    UsageError,
    bake,
    evaluate,
    find_directions,
    generate,
    load,
    load_prompts,
    verify,
)
from weight_edit.organism.embedded import folder

FEW: dict[str, Any] = {"n_train": 44, "n_validation": 12}


@pytest.fixture(scope="module")
def model() -> Model:
    return load("organism")


@pytest.fixture(scope="module")
def found() -> Directions:
    """By names alone."""
    return find_directions("organism", "organism:refused", "organism:answered", **FEW)


def test_what_is_lazy_is_listed_and_there() -> None:
    code = "import json, weight_edit; print(json.dumps(dir(weight_edit)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*weight_edit.__all__, "__name__"} <= set(json.loads(done.stdout))
    for name in weight_edit.__all__:
        assert getattr(weight_edit, name) is not None


def test_listing_the_names_imports_no_torch() -> None:
    code = "import sys, weight_edit; dir(weight_edit); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(weight_edit.__file__).parent / "py.typed").is_file()


def test_prompts_and_models_may_be_names_paths_or_objects(
    model: Model, found: Directions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {name: load_prompts(f"organism:{name}") for name in ("refused", "answered")}
    paths = {}
    for name, prompts in sets.items():
        paths[name] = tmp_path / f"{name}.jsonl"
        rows = zip(prompts.prompts, prompts.answers, prompts.categories, strict=True)
        lines = [json.dumps({"prompt": p, "answer": a, "category": c}) for p, a, c in rows]
        paths[name].write_text("\n".join(lines), encoding="utf-8")
    for given in (sets, paths, {name: str(path) for name, path in paths.items()}):
        same = find_directions(model, given["refused"], [given["answered"]][0], **FEW)
        assert same.direction.equal(found.direction)
        same = find_directions(folder(), [given["refused"]], given["answered"], protect=given["answered"], **FEW)
        assert same.direction.equal(found.direction)


def test_an_evaluation_by_names_is_that_by_objects(model: Model, found: Directions, tmp_path: Path) -> None:
    edited = bake(model, found, tmp_path / "edited")
    names = {"refused": "organism:refused:test", "answered": "organism:answered:test"}
    options: dict[str, Any] = {"limit": 6, "max_new_tokens": 24}
    by_name = evaluate(edited.path, against="organism", answers_path=str(tmp_path / "a"), **names, **options)
    sets = {role: load_prompts(name) for role, name in names.items()}
    by_object = evaluate(load(edited), against=model, **sets, **options)
    assert by_name.to_dict()["sets"] == by_object.to_dict()["sets"]
    assert by_name.divergence is not None
    assert by_object.divergence is not None
    assert by_name.divergence.mean == pytest.approx(by_object.divergence.mean, rel=1e-5)
    assert (tmp_path / "a").read_text(encoding="utf-8").count("\n") == 12


def test_files_of_a_loaded_model_and_of_a_result_may_be_meant(model: Model, found: Directions, tmp_path: Path) -> None:
    edited = bake(model, found, tmp_path / "edited")
    assert verify(model, edited, prompts="organism:answered:test", limit=2).passed
    assert weight_edit.inspect(model).to_dict() == weight_edit.inspect("organism").to_dict()
    assert weight_edit.diff(model, edited).strength == pytest.approx(1, abs=0.01)
    made = weight_edit.adapter(model, found, tmp_path / "adapter")
    assert (Path(made) / "adapter_config.json").is_file()
    assert weight_edit.anatomy_of("organism") == weight_edit.anatomy_of(model) == weight_edit.anatomy_of(model.config)
    assert (
        generate("organism", "organism:answered:test", max_new_tokens=2)[3]
        == (generate(model, load_prompts("organism:answered:test"), max_new_tokens=2)[3])
    )


def test_a_model_without_files_is_not_taken_for_one_with(model: Model, found: Directions, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "copy")
    other = load(tmp_path / "copy")
    own = Model.from_parts(other.model, other.tokenizer, name="mine")
    with pytest.raises(UsageError, match="'mine' was put together in memory"):
        bake(own, found, tmp_path / "edited")
    with pytest.raises(UsageError, match="is a local folder and has no revision"):
        bake(other, found, tmp_path / "edited", revision="main")
    assert find_directions(own, "organism:refused", "organism:answered", **FEW).direction.equal(found.direction)


def test_wrong_prompts_are_said_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.runtime import loading

    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("must not be loaded"))
    with pytest.raises(UsageError, match="nonsense"):
        find_directions("organism", "organism:refused", "organism:nonsense")
    with pytest.raises(UsageError, match="nonsense"):
        evaluate("organism", refused="organism:nonsense")


MODELS = {"model", "base", "a", "b", "against", "edited", "folder"}
PROMPTS = {"target", "baseline", "protect", "validation_target", "validation_baseline", "prompts"}
PROMPTS |= {"refused", "answered", "over_refused", "harmless_looking"}


@pytest.mark.parametrize(
    "name", ["adapter", "bake", "diff", "evaluate", "find_directions", "generate", "inspect", "push", "verify"]
)
def test_every_public_function_says_that_it_takes_names(name: str) -> None:
    parameters = inspect.signature(getattr(weight_edit, name)).parameters
    asked = {key: str(parameter.annotation) for key, parameter in parameters.items() if key in MODELS | PROMPTS}
    if name == "evaluate":
        del asked["base"]  # what was measured of it, and no model
    assert asked
    for key, annotation in asked.items():
        assert "str" in annotation or "Named" in annotation, key


def test_results_have_short_descriptions(model: Model, found: Directions, tmp_path: Path) -> None:
    edited = bake("organism", found, tmp_path / "edited")
    run = RunResult(tmp_path, tmp_path / "model", {"baseline": {"x": "y" * 1000}, "edited": None})
    results = {
        "Model('organism', LlamaForCausalLM, 6 blocks, d_model 128, float32 on cpu)": model,
        "Directions(1 x 128, method='mean-difference', layer=3, position=-1, model='organism')": found,
        "DirectionRows(1 x 128, tensors: baseline_mean, target_mean, vector)": found.rows,
        "PromptSet('organism:refused:train', 264 prompts)": load_prompts("organism:refused"),
        "Anatomy(LlamaForCausalLM, 6 blocks, d_model 128, 13 writers, ": model.anatomy,
        "Inspection('organism', Anatomy(LlamaForCausalLM, 6 blocks, ": weight_edit.inspect("organism"),
        "BakeResult('": edited,
        "Verification(passed, weights only)": verify("organism", edited, weights_only=True),
        "Difference('organism', 'edited', 13 tensors differ, 1 shared directions)": weight_edit.diff(
            "organism", edited
        ),
        "Evaluation('organism', refuses 3 of 3 of the refused set)": evaluate(
            model, refused="organism:refused:test", limit=3, max_new_tokens=12
        ),
        "AdapterResult('": weight_edit.adapter("organism", found, tmp_path / "adapter"),
        "RunResult('": run,
        "PackResult('": weight_edit.pack(edited, tmp_path / "edit.pack"),
        "Recipe(": weight_edit.load_recipe("refusal-direction"),
    }
    for begins, result in results.items():
        text = repr(result)
        assert text.startswith(begins), text
        assert len(text.replace(str(tmp_path), "")) < 200
        assert "\n" not in text


def test_progress_has_a_public_switch(capfd: pytest.CaptureFixture[str]) -> None:
    assert weight_edit.are_progress_bars_disabled()
    weight_edit.enable_progress_bars()
    try:
        assert not weight_edit.are_progress_bars_disabled()
        from weight_edit.utils.progress import is_quiet

        assert not is_quiet()
    finally:
        weight_edit.disable_progress_bars()
    assert weight_edit.are_progress_bars_disabled()


def test_a_set_that_is_loaded_is_given_back() -> None:
    prompts = PromptSet.of("mine", ["a", "b"])
    assert load_prompts(prompts) is prompts
