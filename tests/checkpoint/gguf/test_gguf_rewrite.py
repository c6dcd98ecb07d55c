"""A GGUF file is rewritten in place: nothing but the edited tensors' bytes differs, and that is what is checked."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.checkpoint_samples import content, flip, scaled
from tests.helpers.gguf_files import Stored, mixed_entries, mixed_gguf, mixed_parts, mixed_tensors, write_gguf
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.rewrite.planning import AddedTensor, plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain
from weight_edit.errors import UnsupportedError, UsageError

EDITED = ["token_embd.weight", "blk.0.attn_output.weight", "rope_freqs.weight", "blk.0.odd.bias"]
"""Plain tensors in float16, bfloat16 and float32."""


def outside(checkpoint: Checkpoint, shard: str, names: list[str]) -> bytes:
    """A file's bytes with those of some tensors left out."""
    raw = bytearray((checkpoint.path / shard).read_bytes())
    for name in sorted(names, key=lambda name: -checkpoint.tensors[name].begin):
        info = checkpoint.tensors[name]
        if info.shard == shard:
            del raw[info.begin : info.end]
    return bytes(raw)


@pytest.mark.parametrize("layout", [{}, {"alignment": 256}, {"padding": b"\7"}, {"version": 2}], ids=str)
def test_only_edited_tensors_differ(tmp_path: Path, layout: dict[str, object]) -> None:
    mixed_gguf(tmp_path / "m.gguf", **layout)
    # What lies behind the last tensor is kept, too.
    with (tmp_path / "m.gguf").open("ab") as file:
        file.write(b"end of the file")
    base = Checkpoint.open(tmp_path / "m.gguf")
    (tmp_path / "out").mkdir()
    edits = scaled(base, EDITED, 2.0)
    result = rewrite(base, tmp_path / "out", edits)
    assert list(content(tmp_path / "out")) == ["m.gguf"]
    assert result.edited == tuple(name for name in base.tensors if name in EDITED)
    edited = Checkpoint.open(tmp_path / "out")
    assert edited.tensors == base.tensors
    assert outside(edited, "m.gguf", EDITED) == outside(base, "m.gguf", EDITED)
    for name in EDITED:
        assert np.array_equal(edited.values(name), base.values(name) * 2)
    report = check_integrity(base, edited, edits=edits)
    assert report.problems == ()
    assert (report.tensors_edited, report.tensors_equal) == (len(EDITED), len(base.tensors) - len(EDITED))
    assert report.bytes_compared == base.size - sum(base.tensors[name].size for name in EDITED)


@pytest.mark.parametrize("linked", [False, True])
def test_parts_are_rewritten_each_by_itself(tmp_path: Path, linked: bool) -> None:
    (tmp_path / "base").mkdir()
    base = Checkpoint.open(mixed_parts(tmp_path / "base", 3)[1])
    touched = base.tensors["rope_freqs.weight"].shard
    (tmp_path / "out").mkdir()
    edits = scaled(base, ["rope_freqs.weight"], 4.0)
    result = write_checkpoint(plan_rewrite(base, edits), tmp_path / "out", linked=linked)
    edited = Checkpoint.open(tmp_path / "out")
    for shard in base.shards:
        same = (base.path / shard).samefile(edited.path / shard)
        assert same == (linked and shard != touched)
        assert (content(base.path)[shard] == content(edited.path)[shard]) == (shard != touched)
    assert (result.bytes_linked > 0) == linked
    assert np.array_equal(edited.values("rope_freqs.weight"), base.values("rope_freqs.weight") * 4)
    assert check_integrity(base, edited, edits=edits).problems == ()


def test_of_a_folder_the_other_files_come_along(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    mixed_gguf(tmp_path / "base" / "m.gguf")
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    rewrite(Checkpoint.open(tmp_path / "base"), tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "base")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    rewrite(Checkpoint.open(tmp_path / "base" / "m.gguf"), tmp_path / "out")
    assert list(content(tmp_path / "out")) == ["m.gguf"]


SHAPES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([8, 32, 128]), st.binary(max_size=40), st.data())
def test_any_file_without_an_edit_is_the_same_and_with_one_the_same_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], alignment: int, end: bytes, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(0)
    tensors = {f"t.{number}": Stored.of(rng.standard_normal(shape)) for number, shape in enumerate(shapes)}
    path = write_gguf(root / "m.gguf", mixed_entries(alignment), tensors, alignment=alignment)
    path.write_bytes(path.read_bytes() + end)
    base = Checkpoint.open(path)
    for name in ("same", "edited"):
        (root / name).mkdir()
    rewrite(base, root / "same")
    assert (root / "same" / "m.gguf").read_bytes() == path.read_bytes()
    chosen = data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, unique=True))
    edits = scaled(base, chosen, 2.0)
    rewrite(base, root / "edited", edits)
    edited = Checkpoint.open(root / "edited")
    assert outside(edited, "m.gguf", chosen) == outside(base, "m.gguf", chosen)
    assert all(np.array_equal(edited.values(name), base.values(name) * 2) for name in chosen)
    assert check_integrity(base, edited, edits=edits).ok


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Checkpoint, Path, list[EditedTensor]]:
    base = Checkpoint.open(mixed_gguf(tmp_path / "m.gguf", alignment=256))
    (tmp_path / "out").mkdir()
    edits = scaled(base, EDITED, 2.0)
    rewrite(base, tmp_path / "out", edits)
    return base, tmp_path / "out" / "m.gguf", edits


def problems(base: Checkpoint, path: Path, edits: list[EditedTensor]) -> str:
    return "\n".join(check_integrity(base, path.parent, edits=edits).problems)


def test_one_bit_anywhere_is_found(pair: tuple[Checkpoint, Path, list[EditedTensor]]) -> None:
    base, path, edits = pair
    assert problems(base, path, edits) == ""
    whole = path.read_bytes()
    start = base.headers["m.gguf"].data_start
    gaps = [(one.end, two.begin) for one, two in pairwise(base.headers["m.gguf"].tensors)]
    between = [place for begin, end in gaps if begin < end for place in (begin, end - 1)]
    assert len(between) == 4
    for place in [*range(0, start, 499), *between, len(whole) - 1]:
        flip(path, place)
        found = problems(base, path, edits)
        assert "m.gguf" in found, place
        if place in between:
            assert f"bytes that belong to no tensor differ from the base's (first at byte {place})" in found
        path.write_bytes(whole)
    for name, info in base.tensors.items():
        flip(path, info.begin + 1)
        assert f"tensor {name!r}" in problems(base, path, edits), name
        path.write_bytes(whole)
    for cut in (whole + bytes(32), whole[:-1]):
        path.write_bytes(cut)
        assert f"the file has {len(cut)} bytes, the base's {len(whole)}" in problems(base, path, edits)
    path.write_bytes(whole)
    assert problems(base, path, edits) == ""


def test_damage_of_a_plain_tensor_is_refused(tmp_path: Path) -> None:
    tensors = mixed_tensors()
    numbers = np.zeros(33, "<f4")
    numbers[7] = np.nan
    tensors["rope_freqs.weight"] = Stored(0, [33], numbers.tobytes())
    base = Checkpoint.open(write_gguf(tmp_path / "m.gguf", mixed_entries(), tensors))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match=r"tensor 'rope_freqs\.weight' has NaN or infinite values"):
        rewrite(base, tmp_path / "out", scaled(base, ["token_embd.weight"], 0.5))
    (tmp_path / "again").mkdir()
    plan = plan_rewrite(base, scaled(base, ["token_embd.weight"], 0.5))
    result = write_checkpoint(plan, tmp_path / "again", allow_nonfinite=True)
    assert dict(result.nonfinite) == {"rope_freqs.weight": 1}


def test_what_would_change_the_file_s_size_is_refused_by_name(tmp_path: Path) -> None:
    base = Checkpoint.open(mixed_gguf(tmp_path / "m.gguf"))
    with pytest.raises(UnsupportedError, match=r"m\.gguf has no tensor 'output\.weight', and none is added"):
        plan_rewrite(base, [], added={"output.weight": AddedTensor.of(np.ones((2, 2)), "F32")})
    with pytest.raises(UnsupportedError, match=r"sets 'tie_word_embeddings' of a config\.json"):
        plan_rewrite(base, [], config={"tie_word_embeddings": False})
    info = base.tensors["token_embd.weight"]
    wider = EditedTensor(
        source=Plain(info.name, info.dtype, info.shape, 1),
        target=Plain(info.name, "F32", info.shape, 1),
        map=None,
        along_rows=False,
    )
    with pytest.raises(UnsupportedError, match=r"tensor 'token_embd\.weight' stays F16, and cannot become F32"):
        plan_rewrite(base, [wider])


def test_a_type_that_is_not_edited_is_refused_by_the_tensor_s_name(tmp_path: Path) -> None:
    base = Checkpoint.open(mixed_gguf(tmp_path / "m.gguf"))
    with pytest.raises(
        UnsupportedError, match=r"tensor 'blk\.1\.ffn_down\.weight' is stored as IQ2_XS, a type of GGUF"
    ):
        storage_of("blk.1.ffn_down.weight", base.tensors, base.config, 0)
    with pytest.raises(UnsupportedError, match=r"tensor 'blk\.1\.steps' is stored as I32"):
        storage_of("blk.1.steps", base.tensors, base.config, 0)
    assert storage_of("blk.0.odd.bias", base.tensors, base.config, 0).shape == (7,)


def test_a_file_changed_meanwhile_is_no_source(tmp_path: Path) -> None:
    path = mixed_gguf(tmp_path / "m.gguf")
    base = Checkpoint.open(path)
    os.utime(path, ns=(1, 1))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="changed while it was in use"):
        rewrite(base, tmp_path / "out", scaled(base, ["rope_freqs.weight"], 0.5))
