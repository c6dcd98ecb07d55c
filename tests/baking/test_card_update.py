"""What verify and evaluate measure goes into the card, digests kept true, or nothing does; verify checks the card."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.helpers.baked_organism import organism_row
from tests.helpers.fake_hub import FakeHub
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.baking.card import update as filling
from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.card_and_manifest import README, summary_of
from weight_edit.baking.card.update import fill_in
from weight_edit.checkpoint.manifest import MANIFEST, read_manifest, record, records_of, sha256, write_manifest
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError
from weight_edit.hub.base_card import inherited
from weight_edit.hub.source import Source, resolve
from weight_edit.organism.embedded import folder
from weight_edit.verification.card_check import card_problems
from weight_edit.verification.verify import verify

RATE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 5, "total": 10}
VERDICTS = {"refused": 5, "answered": 4, "empty": 1, "looping": 0, "off_template": 0}
REFUSED = {"prompts": "organism:refused:test", "sha256": "a" * 64, "count": 10, "refusal": RATE, "verdicts": VERDICTS}
EVALUATION = {
    "judge": "extended",
    "max_new_tokens": 64,
    "system": None,
    "sets": {"refused": REFUSED},
    "divergence": None,
}
CHECKED = {"passed": True, "integrity": True, "leak": 2e-8, "logit_difference": 1e-5, "complete": True, "prompts": 16}


def manifest_of(path: Path) -> dict[str, Any]:
    found = read_manifest(path)
    assert found is not None
    return found


def is_true(path: Path) -> bool:
    """The manifest lists every file as it is, and the card is what it gives."""
    manifest = manifest_of(path)
    digests = all(sha256(path / name) == known.sha256 for name, known in records_of(manifest).items())
    return digests and (path / README).read_text("utf-8") == model_card(manifest)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def forged(path: Path, change: Callable[[dict[str, Any]], None], card: bool = True) -> None:
    """Change the manifest, and make card and digests fit."""
    manifest = manifest_of(path)
    change(manifest)
    records = records_of(manifest)
    manifest.pop("files")
    if card:
        (path / README).write_text(model_card(manifest), encoding="utf-8")
    write_manifest(path, manifest, records | {README: record(path, README, "added")})


def problems(path: Path, base: Path | None = None) -> list[str]:
    return card_problems(path, manifest_of(path), Checkpoint.open(base or folder()))


def test_the_card_of_a_bake_is_what_the_manifest_gives(baked: Path) -> None:
    assert is_true(baked)
    assert problems(baked) == []


def test_the_card_of_a_bake_links_the_papers_of_its_registries(tmp_path: Path) -> None:
    rows = organism_row()
    rows.metadata["papers"] = ["2306.03819"]
    bake("organism", rows, tmp_path / "out")
    assert problems(tmp_path / "out") == []
    card = (tmp_path / "out" / README).read_text("utf-8")
    assert "| paper of the edit | [arXiv 2406.11717](https://arxiv.org/abs/2406.11717) |" in card
    assert "| paper of the directions | [arXiv 2306.03819](https://arxiv.org/abs/2306.03819) |" in card


def test_verify_and_evaluate_fill_in_the_card(baked: Path, call: Any) -> None:
    result = call("verify", "organism", baked)
    assert result.code == 0
    assert f"{baked}/README.md: filled in with what was measured" in result.err
    assert is_true(baked)
    assert "Verification: integrity holds; the largest share" in (baked / README).read_text("utf-8")
    sets = ["--refused", "organism:refused:test", "--answered", "organism:answered:test", "--limit", "4"]
    result = call("evaluate", baked, "--against", "organism", *sets, "--max-new-tokens", "8")
    assert result.code == 0
    assert "filled in" in result.err
    assert is_true(baked)
    card = (baked / README).read_text("utf-8")
    assert "| refusal of refused requests |" in card
    assert "| refused | `organism:refused:test` | 4 |" in card
    assert "Verification: integrity holds; the largest share" in card
    assert call("verify", "organism", baked, "--json").code == 0
    assert is_true(baked)


def test_a_call_that_is_told_not_to_changes_nothing(baked: Path, call: Any) -> None:
    before = content(baked)
    assert call("verify", "organism", baked, "--no-card", "--weights-only").code == 0
    assert call("evaluate", baked, "--answered", "organism:answered:test", "--limit", "2").code == 0
    assert content(baked) == before


def test_figures_of_the_files_alone_do_not_replace_those_of_the_models(baked: Path) -> None:
    only = {**CHECKED, "leak": None, "logit_difference": None, "weights_only": True}
    assert "filled in" in str(fill_in(baked, verification=only))
    assert "the models were not run" in (baked / README).read_text("utf-8")
    assert "filled in" in str(fill_in(baked, verification=CHECKED))
    assert fill_in(baked, verification=only) is None
    assert "2.0e-08" in (baked / README).read_text("utf-8")
    assert is_true(baked)
    before = (baked / README).stat(), (baked / MANIFEST).stat()
    assert fill_in(baked, verification={**CHECKED, "integrity_report": {"seconds": 2.5}}) is None
    assert ((baked / README).stat(), (baked / MANIFEST).stat()) == before, "run --resume takes the model for finished"


def test_a_baseline_stays_only_beside_what_can_be_compared_with_it(baked: Path) -> None:
    fill_in(baked, baseline=EVALUATION, edited=EVALUATION, base="organism")
    assert "| measure | base | edited |" in (baked / README).read_text("utf-8")
    better = {**EVALUATION, "sets": {"refused": {**REFUSED, "refusal": {**RATE, "value": 0.1}}}}
    fill_in(baked, edited=better, base="organism")
    assert "| 0.500 [0.400, 0.600] | 0.100 [0.400, 0.600] |" in (baked / README).read_text("utf-8")
    fill_in(baked, edited={**better, "max_new_tokens": 8}, base="organism")
    assert "| measure | edited |" in (baked / README).read_text("utf-8")
    assert manifest_of(baked)["measurements"]["baseline"] is None
    assert is_true(baked)


def test_what_is_not_ours_or_not_as_it_was_stays_as_it_is(baked: Path, tmp_path: Path) -> None:
    assert fill_in(tmp_path / "nowhere", edited=EVALUATION, base="organism") is None
    assert fill_in("org/model", edited=EVALUATION, base="organism") is None
    assert fill_in(baked, verification={**CHECKED, "passed": False}) is None
    assert "is not the base that weight_edit.json names" in str(fill_in(baked, edited=EVALUATION, base="other"))
    (baked / README).write_text((baked / README).read_text("utf-8") + "My own words.\n", "utf-8")
    before = content(baked)
    assert "are not those that weight_edit.json lists" in str(fill_in(baked, verification=CHECKED))
    (baked / README).unlink()
    del before[README]
    assert "are not those that weight_edit.json lists" in str(fill_in(baked, verification=CHECKED))
    assert content(baked) == before


@pytest.mark.parametrize("failing", ["card", "manifest"])
def test_a_folder_that_cannot_be_written_is_no_error(baked, call, monkeypatch, failing) -> None:
    """Both files or neither: also where the second of them fails."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    before = content(baked)
    if failing == "card":
        monkeypatch.setattr(filling, "write_whole", refuse)
    else:
        monkeypatch.setattr(filling, "write_manifest", refuse)
    result = call("verify", "organism", baked, "--weights-only")
    assert result.code == 0
    assert "the card stays as it is: Read-only file system" in result.err
    assert content(baked) == before


def test_a_signal_between_both_files_waits(baked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = filling.write_manifest

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return write(*args)

    monkeypatch.setattr(filling, "write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill_in(baked, verification=CHECKED)
    assert is_true(baked)
    assert manifest_of(baked)["measurements"]["verification"] == CHECKED


def test_a_removed_or_forged_card_fails_by_name(baked: Path) -> None:
    (baked / README).write_text("# Something else\n", encoding="utf-8")
    assert problems(baked) == ["README.md: is not the model card that weight_edit.json gives"]
    forged(baked, lambda manifest: None, card=False)
    checked = verify("organism", baked, weights_only=True)
    assert checked.problems == ("README.md: is not the model card that weight_edit.json gives",)
    (baked / README).unlink()
    manifest = manifest_of(baked)
    records = {name: known for name, known in records_of(manifest).items() if name != README}
    manifest.pop("files")
    write_manifest(baked, manifest, records)
    assert verify("organism", baked, weights_only=True).problems == ("README.md: the model card is missing",)


def test_a_link_is_no_card(baked: Path, tmp_path: Path) -> None:
    shutil.move(baked / README, baked / "card.md")
    (baked / README).symlink_to("card.md")
    assert problems(baked) == ["README.md: the model card is missing"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["card"].update(papers={"ablate": ["2306.03819"]}), "the papers in 'card' are not those"),
        (lambda m: m["card"]["metadata"].update(license="mit"), "not those of the base's card"),
        (lambda m: m["card"].pop("metadata"), "gives no model card"),
        (lambda m: m["card"].update(chat_template=False), "whether the base has a chat template"),
        (lambda m: m["card"].update(base_model="org/other", base_model_from="hub"), "is not that of 'source'"),
        (lambda m: m.pop("card"), "has no entry 'card'"),
        (lambda m: m.update(card=5), "has no entry 'card'"),
        (lambda m: m["edit"]["steps"][0]["directions"].update(method="mine"), "is not the model card"),
        (lambda m: m["edit"].update({"class": "exact, and blessed"}), "is not the model card"),
        (lambda m: m.update(measurements={"edited": {"sets": {"refused": 5}}}), "gives no model card"),
        (lambda m: m.update(measurements={"verification": {"integrity": True, "leak": "none"}}), "gives no model card"),
    ],
)
def test_a_forged_manifest_is_named(baked: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    forged(baked, change, card=False)
    found = problems(baked)
    assert len(found) >= 1
    assert any(words in problem for problem in found), found
    assert all(problem.isprintable() for problem in found)


@pytest.mark.parametrize("change", [{"failed": 5}, {"tensors": None}, {"measurements": [1]}], ids=str)
def test_a_manifest_of_the_wrong_form_is_refused_by_name(baked: Path, change: dict[str, Any]) -> None:
    forged(baked, lambda manifest: manifest.update(change), card=False)
    with pytest.raises(UsageError, match=f"weight_edit.json: `{next(iter(change))}` must be"):
        problems(baked)


def test_a_forged_licence_fails_though_card_and_digests_fit(baked: Path) -> None:
    forged(baked, lambda manifest: manifest["card"]["metadata"].update(license="mit"))
    checked = verify("organism", baked, weights_only=True)
    assert checked.problems == (
        "weight_edit.json: the licence and other metadata in 'card' are not those of the base's card",
    )


def test_the_usage_in_the_card_runs(baked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (baked / README).read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(code.replace("OWNER/NAME", str(baked)), {})
    assert capsys.readouterr().out.strip()


def test_an_adapter_has_a_card_whose_usage_runs(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folder(), tmp_path / "base"))
    (base / README).write_text("---\nlicense: mit\n---\n# Base\n", encoding="utf-8")
    hub.add("org/base", base)
    adapter("org/base", organism_row(), tmp_path / "adapter")
    manifest = manifest_of(tmp_path / "adapter")
    assert is_true(tmp_path / "adapter")
    card = (tmp_path / "adapter" / README).read_text("utf-8")
    assert "base_model: org/base\nbase_model_relation: adapter" in card
    assert "license: mit" in card
    assert "library_name: peft" in card
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace("OWNER/NAME", str(tmp_path / "adapter")), {})
    assert capsys.readouterr().out.strip()
    assert fill_in(tmp_path / "adapter", verification=CHECKED) is None
    assert manifest_of(tmp_path / "adapter") == manifest


def test_where_the_bases_id_comes_from(tmp_path: Path) -> None:
    base = Path(shutil.copytree(folder(), tmp_path / "Tiny-1B"))
    config = json.loads((base / "config.json").read_text("utf-8"))

    def found(source: Source | None = None, said: str | None = None, **changes: Any) -> tuple[Any, Any]:
        (base / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        used = source or resolve(base)
        card = inherited(used, Checkpoint.open(used.path), said)
        assert card["chat_template"] is True
        return card["base_model"], card["base_model_from"]

    assert found() == (None, None)
    assert found(_name_or_path="org/Tiny-1B") == ("org/Tiny-1B", "config")
    assert found(_name_or_path="checkpoints/step-500") == (None, None), "a folder of whoever saved it"
    assert found(_name_or_path="/home/me/Tiny-1B") == (None, None)
    assert found(_name_or_path=5) == (None, None)
    (base / README).write_text('# Tiny\n`from_pretrained("org/Other-name")`\n', encoding="utf-8")
    assert found(_name_or_path="org/Other-name") == ("org/Other-name", "config")
    assert found(_name_or_path="org/Other-name", said="me/mine") == ("me/mine", "option")
    assert found(Source("org/model", base, "abc")) == ("org/model", "hub")
    cached = tmp_path / "models--org--name--x" / "snapshots" / "abc"
    shutil.copytree(base, cached)
    assert found(resolve(cached)) == ("org/name--x", "cache")
    with pytest.raises(UsageError, match="is no Hub id"):
        found(said="no id")


def test_the_option_is_checked_first_and_reaches_the_card(tmp_path: Path, call: Any) -> None:
    base = Path(shutil.copytree(folder(), tmp_path / "base"))
    organism_row().save(tmp_path / "d.safetensors")
    edit = [base, "--directions", tmp_path / "d.safetensors", "--out", tmp_path / "out"]
    assert "is no Hub id" in call("bake", *edit, "--base-model", "../x").err
    assert not (tmp_path / "out").exists()
    assert call("bake", *edit, "--base-model", "org/base").code == 0
    assert "base_model: org/base" in (tmp_path / "out" / README).read_text("utf-8")
    assert summary_of(manifest_of(tmp_path / "out"))["card"]["base_model_from"] == "option"
    assert MANIFEST in content(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out") is not None
