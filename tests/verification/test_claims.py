"""What an output claims, against the edit made again: forged manifests, steps that were not told, edits of nothing."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.families import save_family
from tests.helpers.small_tokenizer import word_tokenizer
from tests.helpers.verification_samples import PROMPTS, resign, rows
from weight_edit.baking.bake import bake
from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.card_and_manifest import stamp
from weight_edit.plan.step import EditStep
from weight_edit.verification.verify import verify

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` in bfloat16 and its edit `out`, on which a verification is recorded."""
    folder = tmp_path_factory.mktemp("claims")
    save_family("llama", folder / "base", dtype=torch.bfloat16)
    word_tokenizer().save_pretrained(folder / "base")
    bake(folder / "base", rows(), folder / "out")
    checked = verify(folder / "base", folder / "out", prompts=PROMPTS)
    assert checked.passed, checked.problems
    stamp(folder / "out", {"verification": checked.to_dict()})
    return folder


def forged(baked: Path, folder: Path, change: Callable[[Manifest], None]) -> Path:
    """A copy of the output whose manifest was changed, and whose card and digests are right."""
    shutil.copytree(baked / "out", folder / "out")
    path = folder / "out/weight_edit.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with suppress(AttributeError, LookupError, TypeError):
        (folder / "out/README.md").write_text(model_card(manifest), encoding="utf-8")
    resign(folder / "out")
    return folder / "out"


def recorded(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["measurements"]["verification"]
    return found


FORGERIES: dict[str, tuple[Callable[[Manifest], Any], str]] = {
    "class": (lambda m: m["edit"].update({"class": "exact in everything"}), "edit.class"),
    "complete": (lambda m: m["edit"].update(complete=False), "edit.complete"),
    "another entry of the edit": (lambda m: m["edit"].update(safe=True), "edit.safe"),
    "an entry of a step": (lambda m: m["edit"]["steps"][0].update(harmless=True), "edit.steps"),
    "a tensor less": (lambda m: m["tensors"].pop(), "tensors"),
    "a tensor more": (lambda m: m["tensors"].append("lm_head.weight"), "tensors"),
    "an added tensor": (lambda m: m["tensors_added"].append("x.bias"), "tensors_added"),
    "the config": (lambda m: m.update(config_changed=["vocab_size"]), "config_changed"),
    "weights beside it": (lambda m: m.pop("weights_not_edited"), "weights_not_edited"),
    "what was kept": (lambda m: m.update(kept_in_front=["a projector"]), "kept_in_front"),
    "the architecture": (lambda m: m["source"].update(architecture="GPT5"), "source.architecture"),
    "what is left": (lambda m: recorded(m).update(left_in_weights=1e-9), "verification.left_in_weights"),
    "the storage dtype": (lambda m: recorded(m).update(storage_dtype="float32"), "verification.storage_dtype"),
    "how many tensors": (
        lambda m: recorded(m)["edited_tensors"].update(compared=9),
        "verification.edited_tensors.compared",
    ),
    "a note": (lambda m: m.update(notes=["It is safe."]), "its notes"),
    "another kind": (lambda m: m.update(kind="adapter"), "its kind"),
    "an entry of nobody's": (lambda m: m.update(endorsed=True), "its endorsed"),
    "an entry of the source": (lambda m: m["source"].update(licence="mit"), "source.licence"),
    "a figure of nobody's": (lambda m: m["measurements"].update(safety=1.0), "measurements.safety"),
    "a figure less": (lambda m: recorded(m).pop("complete"), "verification.complete"),
    "figures of another edit": (lambda m: recorded(m)["edit"].update(steps=[]), "another edit"),
    "integrity": (lambda m: recorded(m).update(integrity=False), "did not pass"),
    "a verification that failed": (lambda m: recorded(m).update(passed=False), "did not pass"),
    "a verification that is none": (lambda m: m["measurements"].update(verification="passed"), "no verification"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_manifest_fails(baked: Path, tmp_path: Path, what: str) -> None:
    change, named = FORGERIES[what]
    out = forged(baked, tmp_path, change)
    problems = verify(baked / "base", out, weights_only=True).problems
    assert any(problem.startswith("manifest:") and named in problem for problem in problems), problems


def test_a_size_that_no_file_has_fails(baked: Path, tmp_path: Path) -> None:
    out = forged(baked, tmp_path, lambda m: None)
    manifest = json.loads((out / "weight_edit.json").read_text(encoding="utf-8"))
    manifest["files"]["config.json"]["size"] += 1
    (out / "weight_edit.json").write_text(json.dumps(manifest), encoding="utf-8")
    (problem,) = verify(baked / "base", out, weights_only=True).problems
    assert problem.startswith("config.json: has not the")


CARDS: dict[str, Callable[[Manifest], Any]] = {
    "an id that the Hub is said to have": lambda m: m["card"].update(base_model="a/b", base_model_from="hub"),
    "an id that the config is said to have": lambda m: m["card"].update(base_model="a/b", base_model_from="config"),
    "an id from nowhere": lambda m: m["card"].update(base_model="a/b"),
    "one more entry": lambda m: m["card"].update(safe=True),
    "the paper of another edit": lambda m: m["card"].update(papers={"ablate": ["2306.03819"]}),
}


@pytest.mark.parametrize("what", CARDS)
def test_what_the_card_would_say_of_the_base_is_held_against_it(baked: Path, tmp_path: Path, what: str) -> None:
    out = forged(baked, tmp_path, CARDS[what])
    problems = verify(baked / "base", out, weights_only=True).problems
    assert [problem for problem in problems if problem.startswith("weight_edit.json:") and "'card'" in problem]


def test_what_is_said_of_directions_is_held_against_their_file(baked: Path, tmp_path: Path) -> None:
    """A card says by it whether refusal was changed."""
    given = rows()
    given.metadata["method"] = "mean-difference"
    bake(baked / "base", given, tmp_path / "out")
    assert verify(baked / "base", tmp_path / "out", directions=given, weights_only=True).passed
    given.metadata["papers"] = ["2406.11717"]
    assert verify(baked / "base", tmp_path / "out", directions=given, weights_only=True).passed, "of an earlier version"
    given.metadata["method"] = "random"
    (problem,) = verify(baked / "base", tmp_path / "out", directions=given, weights_only=True).problems
    assert "says another 'method' than the file" in problem


def test_what_models_showed_is_not_measured_by_files_alone(baked: Path) -> None:
    checked = verify(baked / "base", baked / "out", weights_only=True).to_dict()
    assert checked["recorded_not_measured"] == ["verification"]
    checked = verify(baked / "base", baked / "out", prompts=PROMPTS).to_dict()
    assert checked["recorded_not_measured"] == []


@pytest.mark.parametrize("figure", ["leak", "logit_difference"])
def test_a_figure_far_below_what_is_found_fails_where_models_run(baked: Path, tmp_path: Path, figure: str) -> None:
    out = forged(baked, tmp_path, lambda m: recorded(m).update({figure: 1e-12}))
    assert verify(baked / "base", out, weights_only=True).passed
    problems = verify(baked / "base", out, prompts=PROMPTS).problems
    assert any(f"verification.{figure} is 1e-12" in problem for problem in problems)


def test_a_recorded_figure_of_what_is_no_number_now_fails(baked: Path, tmp_path: Path) -> None:
    out = forged(baked, tmp_path, lambda m: None)
    weights = load_file(out / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"].fill_(float("nan"))
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    resign(out)
    problems = verify(baked / "base", out, prompts=PROMPTS).problems
    assert any(problem.startswith("stream in float32: nan") for problem in problems), problems


@pytest.mark.parametrize("figure", ["leak", "logit_difference"])
def test_a_truth_value_is_no_figure(baked: Path, tmp_path: Path, figure: str) -> None:
    out = forged(baked, tmp_path, lambda m: recorded(m).update({figure: True}))
    problems = verify(baked / "base", out, prompts=PROMPTS).problems
    assert any(f"verification.{figure} is true" in problem for problem in problems)


def test_the_honest_record_passes_with_other_prompts(baked: Path) -> None:
    assert verify(baked / "base", baked / "out", prompts=PROMPTS, limit=2).problems == ()


def test_a_step_along_other_directions_than_those_given_fails(baked: Path, tmp_path: Path) -> None:
    """The manifest tells of it, but who asks about one direction is asked about nothing else."""
    first, second = rows(), rows(seed=8)
    bake(
        baked / "base",
        [EditStep(directions=first.rows), EditStep(directions=second.rows, kind="reflect")],
        tmp_path / "out",
    )
    assert verify(baked / "base", tmp_path / "out", weights_only=True).passed
    checked = verify(baked / "base", tmp_path / "out", directions=first, weights_only=True)
    assert [problem for problem in checked.problems if "step 2 of the edit (reflect along 1 direction" in problem]
    assert not any("step 1" in problem for problem in checked.problems)
    assert verify(baked / "base", baked / "out", directions=first, weights_only=True).passed


def test_other_tensors_of_the_directions_fail_too(baked: Path, tmp_path: Path) -> None:
    given = rows()
    mean = torch.linspace(-1, 1, 64)
    given.tensors["baseline_mean"] = mean
    bake(
        baked / "base",
        [EditStep(directions=given.rows, kind="affine", options={"enter": "embedding"})],
        tmp_path / "out",
    )
    assert verify(baked / "base", tmp_path / "out", directions=given, weights_only=True).passed
    other = rows()
    other.tensors["baseline_mean"] = -mean
    checked = verify(baked / "base", tmp_path / "out", directions=other, weights_only=True)
    assert any("has another 'baseline_mean' than the file" in problem for problem in checked.problems)


def test_an_edit_that_changes_no_number_fails(baked: Path, tmp_path: Path) -> None:
    bake(baked / "base", rows(), tmp_path / "out", strength=1e-9)
    checked = verify(baked / "base", tmp_path / "out", weights_only=True)
    assert checked.problems == ("the edit changes no number of any tensor: what is stored is the base",)


def test_an_output_in_the_words_of_earlier_versions_still_verifies(baked: Path, tmp_path: Path) -> None:
    def in_earlier_words(manifest: Manifest) -> None:
        manifest["edit"]["embeddings"] = "keep"
        recorded(manifest)["edit"]["embeddings"] = "keep"

    earlier = forged(baked, tmp_path, in_earlier_words)
    assert "edited; where the unembedding is the same tensor" in (earlier / "README.md").read_text(encoding="utf-8")
    checked = verify(baked / "base", earlier, prompts=PROMPTS)
    assert checked.passed, checked.problems


def test_the_card_of_another_version_is_said_and_not_compared(baked: Path, tmp_path: Path) -> None:
    earlier = forged(baked, tmp_path, lambda manifest: manifest.update(weight_edit="0.1.0"))
    card = earlier / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("exactness", "class of the edit"), encoding="utf-8")
    resign(earlier)
    checked = verify(baked / "base", earlier, weights_only=True)
    assert checked.passed, checked.problems
    assert "the card's text (of version 0.1.0)" in checked.to_dict()["recorded_not_measured"]
    forged(baked, tmp_path / "ours", lambda manifest: None)
    ours = tmp_path / "ours/out"
    (ours / "README.md").write_text(card.read_text(encoding="utf-8"), encoding="utf-8")
    resign(ours)
    assert any("is not the model card" in line for line in verify(baked / "base", ours, weights_only=True).problems)


def test_the_edit_that_was_checked_is_printed(call, baked: Path, tmp_path: Path) -> None:
    bake(baked / "base", rows(), tmp_path / "out", strength=0.5, layers=[0])
    checked = call("verify", baked / "base", tmp_path / "out", "--weights-only")
    shown = " ".join(checked.out.split())
    assert checked.code == 0
    assert shown.count("ablate along 1 direction, strength 0.5, layers 0") == 2
    assert "The edit is partial" in shown
    found = call("verify", baked / "base", tmp_path / "out", "--weights-only", "--json").json
    assert found["edit"] == {"steps": ["ablate along 1 direction, strength 0.5, layers 0"], "embeddings": "both"}
    assert found["complete"] is False


def test_all_entries_one_unit_off_fail(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "out", tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    tensors = load_file(path)
    for number, name in enumerate(json.loads((baked / "out/weight_edit.json").read_text(encoding="utf-8"))["tensors"]):
        off = tensors[name].clone()
        off.view(torch.int16).view(-1)[:] += 1 if number % 2 else -1
        tensors[name] = off
    save_file(tensors, path, metadata={"format": "pt"})
    resign(tmp_path / "out")
    checked = verify(baked / "base", tmp_path / "out", weights_only=True)
    assert len(checked.weights.different) == checked.weights.compared


def test_what_was_not_measured_is_not_shown_as_passed(call, baked: Path, tmp_path: Path) -> None:
    """An addition maps no tensor, so that nothing can be left; and rates that a manifest records are not measured."""
    vector = rows()
    bake(
        "organism",
        [EditStep(directions=wide(vector.rows.rows), kind="add", at=(3,), options={"length": "unit"})],
        tmp_path / "out",
    )
    found = call("verify", "organism", tmp_path / "out", "--weights-only", "--json").json
    assert found["left_in_weights"] is None
    shown = " ".join(call("verify", "organism", tmp_path / "out", "--weights-only").out.split())
    assert "left in the weights │ not measured" in shown
    out = forged(baked, tmp_path / "more", lambda m: m["measurements"].update(edited={"refused": {"value": 0.0}}))
    shown = " ".join(call("verify", baked / "base", out, "--weights-only").out.split())
    assert "edited, verification: not checked here" in shown


def wide(known: np.ndarray) -> Any:
    from weight_edit.edits.direction_rows import DirectionRows
    from weight_edit.organism.embedded import folder

    width = json.loads((folder() / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    repeated = np.resize(known, (1, width)).astype(np.float32)
    return DirectionRows(repeated / np.linalg.norm(repeated))
