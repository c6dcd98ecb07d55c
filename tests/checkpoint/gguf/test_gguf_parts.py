"""A GGUF model is found by its file, any of its parts or its folder, and what does not belong together is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.gguf_files import (
    INT32,
    TEXT,
    UINT16,
    UINT32,
    mixed_entries,
    mixed_gguf,
    mixed_parts,
    mixed_tensors,
    write_gguf,
)
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.errors import UnsupportedError, UsageError


def test_a_file_is_a_checkpoint(tmp_path: Path) -> None:
    path = mixed_gguf(tmp_path / "m.gguf")
    (tmp_path / "README.md").write_text("of another")
    (tmp_path / "other.gguf").write_bytes(b"not read")
    checkpoint = Checkpoint.open(path)
    assert checkpoint.gguf is not None
    assert checkpoint.gguf.architecture == "llama"
    assert checkpoint.gguf.keys == tuple(sorted(mixed_entries()))
    assert (checkpoint.path, checkpoint.shards, checkpoint.index_file) == (tmp_path, ("m.gguf",), None)
    assert (checkpoint.other_files, checkpoint.files, dict(checkpoint.config)) == ((), ("m.gguf",), {})
    assert list(checkpoint.tensors) == list(mixed_tensors())
    assert [info.dtype for info in checkpoint.tensors.values()][:4] == ["F16", "F32", "BF16", "Q4_K"]
    for name, stored in mixed_tensors().items():
        assert b"".join(checkpoint.raw(name)) == stored.data
        assert checkpoint.tensors[name].shape == tuple(reversed(stored.dimensions))
    assert checkpoint.values("rope_freqs.weight").shape == (33,)
    with pytest.raises(UnsupportedError, match=r"'blk\.0\.ffn_down\.weight' is stored as Q4_K"):
        checkpoint.values("blk.0.ffn_down.weight")


def test_a_folder_with_one_model_has_its_other_files(tmp_path: Path) -> None:
    mixed_gguf(tmp_path / "m.gguf")
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "weight_edit.json").write_text("{}")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.other_files == ("README.md",)
    assert checkpoint.files == ("README.md", "m.gguf")
    assert checkpoint.gguf is not None
    assert checkpoint.size == sum((tmp_path / name).stat().st_size for name in checkpoint.files)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_part_or_the_folder_is_the_whole_model(tmp_path: Path, count: int) -> None:
    parts = mixed_parts(tmp_path, count)
    for given in (*parts, tmp_path):
        checkpoint = Checkpoint.open(given)
        assert checkpoint.shards == tuple(path.name for path in parts)
        assert set(checkpoint.tensors) == set(mixed_tensors())
        assert checkpoint.gguf is not None
        assert (checkpoint.gguf.architecture, checkpoint.gguf.parts) == ("llama", count)
        assert [info.name for info in checkpoint.gguf.tensors] == list(checkpoint.tensors)
        for name, stored in mixed_tensors().items():
            assert b"".join(checkpoint.raw(name)) == stored.data


def test_a_first_part_may_have_no_tensors(tmp_path: Path) -> None:
    tensors = mixed_tensors()
    said = {"split.count": (UINT16, 2), "split.tensors.count": (INT32, len(tensors))}
    write_gguf(tmp_path / "m-00001-of-00002.gguf", {**mixed_entries(), "split.no": (UINT16, 0), **said})
    write_gguf(tmp_path / "m-00002-of-00002.gguf", {"split.no": (UINT16, 1), **said}, tensors)
    assert set(Checkpoint.open(tmp_path).tensors) == set(tensors)


def test_a_link_into_another_folder_is_followed_and_a_cache_s_kept(tmp_path: Path) -> None:
    real = mixed_gguf(tmp_path / "real.gguf")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m.gguf").symlink_to(real)
    assert Checkpoint.open(tmp_path / "links" / "m.gguf").shards == ("real.gguf",)
    snapshot = tmp_path / "models--org--m" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()
    shutil.copy(real, snapshot.parents[1] / "blobs" / "abc")
    (snapshot / "m.gguf").symlink_to("../../blobs/abc")
    cached = Checkpoint.open(snapshot / "m.gguf")
    assert (cached.path, cached.shards) == (snapshot, ("m.gguf",))
    (tmp_path / "links" / "blob.gguf").symlink_to(snapshot.parents[1] / "blobs" / "abc")
    with pytest.raises(UsageError, match="is a link that leaves the model folder"):
        Checkpoint.open(tmp_path / "links" / "blob.gguf")


def refused(path: Path, error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as caught:
        Checkpoint.open(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def rewritten(number: int, **changes: tuple[int, object] | None) -> Callable[[Path], None]:
    """A part of three whose entries are others."""

    def change(folder: Path) -> None:
        tensors = list(mixed_tensors().items())
        entries = {
            **(mixed_entries() if not number else {}),
            "split.no": (UINT16, number),
            "split.count": (UINT16, 3),
            "split.tensors.count": (INT32, len(tensors)),
        }
        for name, entry in changes.items():
            entries.pop(name.replace("__", "."), None)
            if entry is not None:
                entries[name.replace("__", ".")] = entry
        write_gguf(folder / f"m-{number + 1:05}-of-00003.gguf", entries, dict(tensors[number::3]))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "m-00002-of-00003.gguf").unlink(), "m-00002-of-00003.gguf is missing, part 2 of 3"),
        (rewritten(1, split__no=(UINT16, 2)), "m-00002-of-00003.gguf: split.no is 2 where its name says 1"),
        (rewritten(1, split__no=None), "m-00002-of-00003.gguf: split.no is None"),
        (rewritten(2, split__count=(UINT16, 4)), "m-00003-of-00003.gguf: split.count is 4 where its name says 3"),
        (rewritten(2, split__count=(TEXT, "3")), "m-00003-of-00003.gguf: split.count is 3"),
        (rewritten(0, split__tensors__count=(INT32, 12)), "it claims 12 tensors in all parts, and there are 11"),
        (rewritten(0, general__architecture=None), "does not say what architecture"),
        (
            lambda folder: shutil.copy(folder / "m-00001-of-00003.gguf", folder / "m-00002-of-00003.gguf"),
            "m-00002-of-00003.gguf: split.no is 0",
        ),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    mixed_parts(tmp_path, 3)
    assert Checkpoint.open(tmp_path).tensors
    change(tmp_path)
    assert said in refused(tmp_path / "m-00001-of-00003.gguf")


def test_a_tensor_in_two_parts(tmp_path: Path) -> None:
    said = {"split.count": (UINT16, 2)}
    for number in range(2):
        entries = {**(mixed_entries() if not number else {}), "split.no": (UINT16, number), **said}
        write_gguf(tmp_path / f"m-{number + 1:05}-of-00002.gguf", entries, mixed_tensors())
    found = refused(tmp_path)
    assert "m-00002-of-00002.gguf: tensor 'token_embd.weight': it is in m-00001-of-00002.gguf already" in found


def test_names_and_kinds_that_are_no_model(tmp_path: Path) -> None:
    path = mixed_gguf(tmp_path / "m-00003-of-00002.gguf")
    assert "there is no part 3 of 2" in refused(path)
    part = write_gguf(tmp_path / "x.gguf", {**mixed_entries(), "split.count": (UINT16, 4)}, mixed_tensors())
    assert "is one of 4 parts; give it the name that parts have (NAME-00001-of-00004.gguf)" in refused(part)
    empty = write_gguf(tmp_path / "y.gguf", mixed_entries())
    assert "has no tensors" in refused(empty)
    unnamed = write_gguf(tmp_path / "z.gguf", {"general.name": (TEXT, "x")}, mixed_tensors())
    assert "does not say what architecture" in refused(unnamed)
    adapter = write_gguf(tmp_path / "a.gguf", {**mixed_entries(), "general.type": (TEXT, "adapter")}, mixed_tensors())
    assert "a.gguf holds no model but 'adapter', by its general.type" in refused(adapter, UnsupportedError)


def test_folders_with_several_models_or_a_config(tmp_path: Path) -> None:
    mixed_gguf(tmp_path / "b.gguf")
    mixed_parts(tmp_path, 2, "a")
    said = refused(tmp_path)
    assert "has several GGUF models (a-00001-of-00002.gguf, b.gguf); give the file itself" in said
    (tmp_path / "b.gguf").unlink()
    assert len(Checkpoint.open(tmp_path).shards) == 2
    (tmp_path / "config.json").write_text("{}")
    assert "weights in GGUF alone" in refused(tmp_path)
    assert gguf_files(tmp_path) is None
    assert gguf_files(tmp_path / "nowhere.gguf") is None


def test_a_change_of_the_file_is_noticed(tmp_path: Path) -> None:
    parts = mixed_parts(tmp_path, 2)
    before = fingerprint(parts[0])
    assert fingerprint(parts[1]) == before
    checkpoint = Checkpoint.open(parts[0])
    parts[1].write_bytes(parts[1].read_bytes() + bytes(32))
    assert fingerprint(parts[0]) != before
    with pytest.raises(UsageError, match="changed while it was in use"):
        checkpoint.open_file(parts[1].name)
    mixed_gguf(tmp_path / "other.gguf", alignment=64, seed=3)
    assert fingerprint(tmp_path / "other.gguf") != before


def test_the_alignment_is_that_of_each_part(tmp_path: Path) -> None:
    tensors = list(mixed_tensors().items())
    for number, alignment in enumerate((32, 256)):
        entries = {
            **(mixed_entries() if not number else {"general.alignment": (UINT32, alignment)}),
            "split.no": (UINT16, number),
            "split.count": (UINT16, 2),
        }
        path = tmp_path / f"m-{number + 1:05}-of-00002.gguf"
        write_gguf(path, entries, dict(tensors[number::2]), alignment=alignment)
    checkpoint = Checkpoint.open(tmp_path)
    assert all(b"".join(checkpoint.raw(name)) == stored.data for name, stored in tensors)
