"""The model card says what was done and measured, and pushing refuses what was not verified."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from weight_edit.baking import bake
from weight_edit.directions.artifact import Directions
from weight_edit.errors import UsageError, VerificationError
from weight_edit.organism import folder
from weight_edit.publish import hub
from weight_edit.publish.card import deed, front_matter, model_card
from weight_edit.publish.finishing import stamp
from weight_edit.publish.hub import push

FOUND = {"shape": [1, 8], "method": "mean-difference", "layer": 3, "position": -1}
STEP = {"edit": "ablate", "strength": 1.0, "layers": None, "directions": FOUND}
SUMMARY = {
    "weight_edit": "0.1.0",
    "source": {"model": "org/base", "on_hub": True, "revision": "abc", "architecture": "LlamaForCausalLM"},
    "edit": {"steps": [STEP], "embeddings": "keep", "class": "exact in weights", "complete": True},
    "tensors": ["a", "b"],
    "tensors_added": [],
    "tensors_unknown": [],
    "weights_not_edited": [],
    "base_card": None,
}
RATE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 5, "total": 10}
VERDICTS = {"refused": 5, "answered": 4, "empty": 1, "looping": 0, "off_template": 0}


def evaluation() -> dict[str, Any]:
    refused = {"refusal": RATE, "exact": None, "loss": None, "verdicts": VERDICTS}
    return {"judge": "extended", "max_new_tokens": 64, "sets": {"refused": refused}, "divergence": None}


def test_the_card_keeps_the_licence_and_names_the_base() -> None:
    base = "---\nlicense: llama3\nlanguage: [en]\nmodel-index: [{name: x}]\n---\n# Base\n"
    card = model_card(SUMMARY, None, base)
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "llama3"
    assert header["language"] == ["en"]
    assert header["base_model"] == "org/base"
    assert "model-index" not in header, "the base's scores are not the edited model's"
    assert "Refusal behaviour was changed on purpose" in card
    assert "Nothing was measured" in card
    assert "at `abc`" in card


def test_a_local_base_is_not_named_as_a_hub_model() -> None:
    local = {**SUMMARY, "source": {**SUMMARY["source"], "on_hub": False, "revision": None}}
    assert "base_model" not in yaml.safe_load(model_card(local, None, None).split("---")[1])


def test_the_card_shows_what_was_measured_with_intervals_and_the_judge() -> None:
    checked = {"integrity": True, "leak": 2e-8, "logit_difference": 1e-5}
    card = model_card(SUMMARY, {"baseline": evaluation(), "edited": evaluation(), "verification": checked}, None)
    assert "| refusal of refused requests | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] |" in card
    assert "| empty, looping, off-template or undecided answers | 1 | 1 |" in card
    assert '"extended"' in card
    assert "integrity holds" in card
    assert "2.0e-08" in card
    assert "Nothing was measured" not in card


@pytest.mark.parametrize("text", [None, "", "# no header", "---\n: [\n---\n", "---\n- a\n---\n", "---\nnever closed"])
def test_cards_without_usable_front_matter(text: str | None) -> None:
    assert isinstance(front_matter(text), dict)
    assert model_card(SUMMARY, None, text).startswith("---\n")


def test_a_hostile_base_card_makes_no_objects() -> None:
    assert front_matter("---\na: !!python/object/apply:os.system ['true']\n---\n") == {}


@pytest.mark.parametrize(("strength", "word"), [(1.0, "removed"), (0.5, "weakened"), (2.0, "turned")])
def test_what_the_edit_does_in_words(strength: float, word: str) -> None:
    assert word in deed({"edit": "ablate", "strength": strength})


def test_a_kind_of_edit_that_is_new_is_not_called_an_ablation() -> None:
    assert deed({"edit": "mine", "strength": 0.5}) == "the residual stream changed by the edit 'mine', strength 0.5"


def test_every_step_stands_in_the_card() -> None:
    steps = [
        {**STEP, "edit": "affine", "options": {"toward": "target"}},
        {**STEP, "strength": 0.7, "layers": [0, 1, 2], "kernel": {"attention": None, "mlp": None}},
        {**STEP, "edit": "reflect", "at": [1], "directions": {"shape": [2, 8]}},
    ]
    edit = {"steps": steps, "embeddings": "untie", "class": "exact in weights and biases", "complete": False}
    card = model_card({**SUMMARY, "edit": edit}, None, None)
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert table[2:-1] == [
        "| edit 1 | affine, strength 1, all layers, toward target |",
        "| directions 1 | 1, found by mean-difference, at the input of layer 3, position -1 |",
        "| edit 2 | ablate, strength 0.7, layers 0, 1 and 2, weaker by layer as its kernel says |",
        "| directions 2 | 1, found by mean-difference, at the input of layer 3, position -1 |",
        "| edit 3 | reflect, strength 1, at the input of layer 1 |",
        "| directions 3 | 2, found by a method not recorded |",
        "| embeddings | untie |",
        "| class of the edit | exact in weights and biases |",
    ]
    assert "(affine concept editing); then a direction of the residual stream weakened" in card
    one = model_card(SUMMARY, None, None)
    assert "| edit | ablate, strength 1, all layers |" in one
    assert "| class of the edit | exact in weights |" in one
    assert "Refusal behaviour was changed on purpose" in one


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    row = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)))
    bake("organism", Directions(row), tmp_path / "out")
    return tmp_path / "out"


def test_a_dry_run_verifies_and_lists_but_sends_nothing(baked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_upload", lambda *args: pytest.fail("a dry run must not upload"))
    result = push(baked, "me/model", dry_run=True)
    assert result.url is None
    assert result.verification.passed
    assert set(result.files) == {path.name for path in baked.iterdir()}


def test_an_upload_sends_exactly_the_listed_files(baked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            sent["token"] = token

        def create_repo(self, repo_id: str, **options: Any) -> None:
            sent["repo"] = (repo_id, options)

        def upload_folder(self, **options: Any) -> Any:
            sent["upload"] = options
            return type("Commit", (), {"commit_url": "https://example.org/commit"})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    result = push(baked, "me/model", private=True, token="secret")
    assert result.url == "https://example.org/commit"
    assert sent["repo"] == ("me/model", {"private": True, "exist_ok": True})
    assert sorted(sent["upload"]["allow_patterns"]) == sorted(path.name for path in baked.iterdir())
    assert "secret" not in json.dumps(result.to_dict())


def test_a_hub_that_cannot_be_reached_is_said(baked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    class Api:
        def __init__(self, token: str | None = None) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> None:
            raise httpx2.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(UsageError, match=r"'me/model' could not be pushed: .*Connection refused"):
        push(baked, "me/model")


def test_a_changed_or_stray_file_is_not_pushed(baked: Path) -> None:
    (baked / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"notes\.txt"):
        push(baked, "me/model", dry_run=True)
    (baked / "notes.txt").unlink()
    (baked / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"config\.json"):
        push(baked, "me/model", dry_run=True)


def test_a_local_path_is_not_published(tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "private-place/base")
    row = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)))
    bake(tmp_path / "private-place/base", Directions(row), tmp_path / "out")
    for name in ("weight_edit.json", "README.md"):
        assert "private-place" not in (tmp_path / "out" / name).read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="--base"):
        push(tmp_path / "out", "me/model", dry_run=True)
    assert push(tmp_path / "out", "me/model", base=tmp_path / "private-place/base", dry_run=True).verification.passed


def test_a_failed_model_is_not_pushed(baked: Path) -> None:
    stamp(baked, {"baseline": {}, "edited": {}, "verification": None}, failed=("leak: too large",))
    with pytest.raises(VerificationError, match="marked as failed: leak"):
        push(baked, "me/model", dry_run=True)


def test_what_is_no_output_of_ours_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weight_edit\.json"):
        push(tmp_path, "me/model")
    with pytest.raises(UsageError, match="owner/name"):
        push(tmp_path, "not a name")
