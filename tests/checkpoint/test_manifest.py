"""The manifest: stable, complete, and read with suspicion."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.checkpoint.manifest import (
    MANIFEST,
    FileRecord,
    FinishedOutput,
    changed_files,
    check_order,
    read_manifest,
    record,
    records_of,
    said_swapped,
    sha256,
    write_manifest,
)
from weight_edit.errors import UsageError, VerificationError

GOOD = {"sha256": "0" * 64, "size": 1, "origin": "copied"}


def test_round_trip_lists_every_file_but_itself(tmp_path):
    (tmp_path / "b").write_bytes(b"bbb")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(b"")
    records = {"b": record(tmp_path, "b", "edited"), "a/c": record(tmp_path, "a/c", "added")}
    assert records["b"] == FileRecord(hashlib.sha256(b"bbb").hexdigest(), 3, "edited")
    write_manifest(tmp_path, {"z": {"y": 1}, "edit": {"steps": [{}]}}, records)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert list(manifest) == ["z", "edit", "files"]
    assert list(manifest["files"]) == ["a/c", "b"]
    assert records_of(manifest) == records
    assert (tmp_path / MANIFEST).read_text().startswith('{\n  "z": {\n    "y": 1\n')


def test_incomplete_records_are_a_programming_error(tmp_path):
    (tmp_path / "b").touch()
    with pytest.raises(ValueError, match="'b'"):
        write_manifest(tmp_path, {}, {})
    with pytest.raises(ValueError, match="'files'"):
        write_manifest(tmp_path, {"files": 1}, {"b": record(tmp_path, "b", "copied")})


def test_a_folder_without_manifest_has_none(tmp_path):
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {}, "files": {}}',
        "[" * 100_000,
        json.dumps({"files": {"../x": GOOD}}),
        json.dumps({"files": {"/x": GOOD}}),
        json.dumps({"files": {"a\\b": GOOD}}),
        json.dumps({"files": {"": GOOD}}),
        json.dumps({"files": {MANIFEST: GOOD}}),
        json.dumps({"files": {"x": 1}}),
        json.dumps({"files": {"x": {**GOOD, "sha256": "0" * 63}}}),
        json.dumps({"files": {"x": {**GOOD, "sha256": "0" * 64 + "\n"}}}),
        json.dumps({"files": {"x": {**GOOD, "size": -1}}}),
        json.dumps({"files": {"x": {**GOOD, "size": True}}}),
        json.dumps({"files": {"x": {**GOOD, "size": 1.0}}}),
        json.dumps({"files": {"x": {**GOOD, "origin": "elsewhere"}}}),
        json.dumps({"files": {"x": {**GOOD, "origin": []}}}),
        json.dumps({"files": {"x": {**GOOD, "more": 1}}}),
    ],
)
def test_malformed_manifests_are_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UsageError, match=r"weight_edit\.json"):
        read_manifest(tmp_path)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_manifest_causes_a_traceback(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("manifest")
    (folder / MANIFEST).write_text(json.dumps({"files": {"x": value}}))
    with pytest.raises(UsageError):
        read_manifest(folder)


def test_links_out_of_the_folder_are_not_read(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "outside").write_text('{"files": {}}')
    (folder / MANIFEST).symlink_to("../outside")
    with pytest.raises(UsageError, match="leaves"):
        read_manifest(folder)
    with pytest.raises(UsageError):
        sha256(folder / MANIFEST)


def test_files_that_are_not_as_recorded_are_named(baked: Path) -> None:
    output = FinishedOutput.of(baked)
    assert output.check_unchanged() == ()
    (baked / "new.txt").write_text("not of the edit")
    (baked / "config.json").unlink()
    (baked / "README.md").write_text("another card")
    assert changed_files(baked, output.records) == (("README.md", "config.json", "new.txt"), ())
    with pytest.raises(VerificationError, match=r"'README\.md', 'config\.json', 'new\.txt' not as"):
        output.check_unchanged()
    (baked / "weight_edit.json").unlink()
    with pytest.raises(UsageError, match="give an output of bake or run"):
        FinishedOutput.of(baked)


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    """A base, its edit, an edit of that, and a run with the edited model in its folder; of each the folder alone."""
    folders = {name: tmp_path / name for name in ("base", "edit", "again", "run")}
    for folder in folders.values():
        folder.mkdir()
    (folders["run"] / "model").mkdir()
    for folder, source in ((folders["edit"], "base"), (folders["again"], "edit"), (folders["run"] / "model", "base")):
        write_manifest(folder, {"source": {"model": source}}, {})
    return folders


@pytest.mark.parametrize(
    ("base", "edited", "swapped"),
    [
        ("base", "edit", False),
        ("edit", "base", True),
        ("edit", "again", False),
        ("again", "edit", True),
        # Of these two nothing is known.
        ("base", "base", False),
        ("edit", "run", False),
    ],
)
def test_an_edit_in_the_place_of_its_base_is_told(
    chain: dict[str, Path], base: str, edited: str, swapped: bool
) -> None:
    assert bool(said_swapped(chain[base], chain[edited])) == swapped
    assert bool(said_swapped(str(chain[base]), str(chain[edited]))) == swapped
    if not swapped:
        return
    for needed in (True, False):
        with pytest.raises(UsageError, match="give the base first"):
            check_order(chain[base], chain[edited], manifest_needed=needed)


def test_somebody_elses_edit_of_an_output_may_have_no_manifest(chain: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    check_order(chain["edit"], tmp_path / "theirs", manifest_needed=False)
    with pytest.raises(UsageError, match="theirs has none; give the base first"):
        check_order(chain["edit"], tmp_path / "theirs")
    assert said_swapped(chain["edit"], "organism")
    # A loaded model says nothing of where it is from.
    assert not said_swapped(object(), chain["base"])


def test_one_folder_is_not_both_models(chain: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(chain["edit"])
    for other in (chain["edit"], tmp_path / "link"):
        with pytest.raises(UsageError, match="both as the base and as the edited model"):
            check_order(chain["edit"], other)
