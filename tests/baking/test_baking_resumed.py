"""A bake that was interrupted and is gone on with: what it had finished counts only for the same call."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from weight_edit.baking import bake as baking
from weight_edit.baking.bake import bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.organism.embedded import folder
from weight_edit.verification.verify import verify


def direction(seed: int = 0) -> DirectionRows:
    row = np.random.default_rng(seed).standard_normal((1, 128))
    return DirectionRows((row / np.linalg.norm(row)).astype(np.float32))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy, on the file system of the output, so that it can be linked."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in folder().iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def interrupt(monkeypatch: pytest.MonkeyPatch, model: Path, out: Path, **options: bool) -> None:
    """Bake up to the card."""

    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(baking, "write_card_and_manifest", pressed)
        with pytest.raises(KeyboardInterrupt):
            bake(model, direction(), out, **options)


def links(out: Path) -> list[str]:
    return sorted(file.name for file in out.iterdir() if file.stat().st_nlink > 1)


@pytest.mark.parametrize("linked_first", [True, False])
def test_links_and_copies_are_not_mixed(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, linked_first: bool
) -> None:
    interrupt(monkeypatch, model, tmp_path / "out", link=linked_first)
    result = bake(model, direction(), tmp_path / "out", link=not linked_first, resume=True)
    assert result.bytes_kept == 0
    assert bool(links(tmp_path / "out")) is not linked_first
    assert verify(model, tmp_path / "out", weights_only=True).passed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


@pytest.mark.parametrize("link", [True, False])
def test_the_same_call_goes_on(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, link: bool) -> None:
    interrupt(monkeypatch, model, tmp_path / "out", link=link)
    result = bake(model, direction(), tmp_path / "out", link=link, resume=True)
    assert result.bytes_kept == result.bytes_total
    assert bool(links(tmp_path / "out")) is link


def test_what_was_copied_with_leave_is_not_kept_without(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    interrupt(monkeypatch, model, tmp_path / "out", allow_nonfinite=True)
    with pytest.raises(UsageError, match=r"'model\.norm\.weight' has NaN"):
        bake(model, direction(), tmp_path / "out", resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_another_direction_begins_anew(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    interrupt(monkeypatch, model, tmp_path / "out")
    assert bake(model, direction(1), tmp_path / "out", resume=True).bytes_kept == 0


def test_a_folder_whose_name_is_no_unicode(tmp_path: Path) -> None:
    source = tmp_path / "mod\udce8le"
    source.mkdir()
    for file in folder().iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    bake(source, direction(), tmp_path / "out")
    assert "mod?le" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
