"""Every way of tampering with an edited checkpoint is found and named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_samples import BASE_TENSORS, Factors, bits, data_start, flip, make_checkpoint, scaled
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.manifest import MANIFEST, read_manifest, write_manifest
from weight_edit.checkpoint.rewrite.planning import AddedTensor
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain

INDEX = "model.safetensors.index.json"
EDITED = ("model.embed.weight", "model.layers.0.out.weight")


class Pair:
    """A base, its edit, and the check with what the edit was allowed to do."""

    def __init__(self, root: Path, shards: int, manifest: bool) -> None:
        self.base = Checkpoint.open(make_checkpoint(root / "base", shards=shards))
        self.out = root / "out"
        self.out.mkdir()
        result = rewrite(self.base, self.out, scaled(self.base, EDITED, 0.5), files={"README.md": b"card"})
        if manifest:
            write_manifest(self.out, {"edit": {"steps": [{"edit": "half"}]}}, result.files)

    def shard(self, name: str) -> Path:
        return self.out / self.base.tensors[name].shard

    def report(self, edited: Checkpoint | Path | None = None):
        return check_integrity(
            self.base, edited or self.out, edits=scaled(self.base, EDITED, 0.5), written_files=["README.md"]
        )

    def problems(self) -> str:
        report = self.report()
        assert report.ok == (not report.problems)
        assert all(line.isprintable() for line in report.problems)
        return "\n".join(report.problems)

    def resave(self, name: str, change) -> None:
        """Change the tensors of the shard that holds `name`, header and all."""
        path = self.shard(name)
        save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.fixture(params=[(0, False), (3, False), (3, True)], ids=["single", "sharded", "sharded-with-manifest"])
def pair(request, tmp_path) -> Pair:
    return Pair(tmp_path, *request.param)


@pytest.fixture
def bare(tmp_path) -> Pair:
    """Without a manifest, so that a problem is found by comparison alone."""
    return Pair(tmp_path, 2, False)


def test_an_honest_edit_passes(pair):
    report = pair.report()
    assert report.problems == ()
    assert report.ok
    assert report.tensors_edited == 2
    assert report.tensors_equal == len(BASE_TENSORS) - 2
    assert report.tensors_added == 0
    assert report.files_equal == len(pair.base.files) - len(pair.base.shards)
    untouched = pair.base.size - sum(pair.base.tensors[name].size for name in EDITED)
    assert report.bytes_compared == untouched
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.parametrize("name", sorted(set(BASE_TENSORS) - set(EDITED) - {"model.empty"}))
@pytest.mark.parametrize("end", [0, -1])
def test_one_bit_of_an_untouched_tensor(pair, name, end):
    info = pair.base.tensors[name]
    flip(pair.shard(name), info.begin if end == 0 else info.end - 1)
    found = pair.problems()
    assert info.shard in found
    assert name in found
    assert f"byte {0 if end == 0 else info.size - 1})" in found


def test_large_tensors_are_compared_to_the_last_byte(tmp_path):
    big = {"big": torch.zeros(3_000_000), "other": torch.ones(2)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", big, extras=False))
    (tmp_path / "out").mkdir()
    rewrite(base, tmp_path / "out")
    assert check_integrity(base, tmp_path / "out").ok
    flip(tmp_path / "out" / "model.safetensors", base.tensors["big"].end - 1)
    report = check_integrity(base, tmp_path / "out")
    assert [line for line in report.problems if "'big'" in line and "byte 11999999" in line]
    assert report.tensors_equal == 1


def test_every_bit_of_a_header(bare):
    path = bare.shard("model.scale")
    whole = path.read_bytes()
    for byte in range(data_start(path)):
        flip(path, byte)
        found = bare.problems()
        assert path.name in found
        path.write_bytes(whole)
    assert bare.problems() == ""


def test_header_metadata_and_spacing(bare):
    path = bare.shard("model.scale")
    save_file(load_file(path), path, metadata={"format": "np"})
    assert "__metadata__" in bare.problems()


@pytest.mark.parametrize("name", ["tokenizer.json", "modeling_tiny.py", "assets/deep/vocab.bin", "config.json"])
def test_one_bit_of_another_file(pair, name):
    flip(pair.out / name, 12)
    assert name in pair.problems()


def test_a_longer_or_shorter_file(bare):
    (bare.out / "empty.txt").write_text("x")
    (bare.out / "tokenizer.json").write_bytes((bare.out / "tokenizer.json").read_bytes()[:-1])
    found = bare.problems()
    assert "empty.txt: the content differs from the base's (1 bytes, not 0)" in found
    assert "tokenizer.json: the content differs" in found


def test_missing_and_added_files(pair):
    (pair.out / "tokenizer.json").unlink()
    (pair.out / "assets" / "extra.bin").write_text("x")
    found = pair.problems()
    assert "tokenizer.json: the file is missing" in found
    assert "assets/extra.bin: the file is not in the base" in found


def test_a_missing_shard_or_index(bare):
    (bare.out / INDEX).unlink()
    assert not bare.report().ok
    assert INDEX in bare.problems()


def test_a_renamed_tensor(bare):
    def rename(tensors):
        tensors["model.scalf"] = tensors.pop("model.scale")
        return tensors

    bare.resave("model.scale", rename)
    text = (bare.out / INDEX).read_text().replace("model.scale", "model.scalf")
    (bare.out / INDEX).write_text(text)
    found = bare.problems()
    assert "'model.scale': is missing" in found
    assert "'model.scalf': is not in the base" in found
    assert INDEX in found


def test_another_dtype_or_shape(bare):
    bare.resave("model.layers.0.norm.weight", lambda t: {**t, "model.layers.0.norm.weight": torch.ones(4).bfloat16()})
    bare.resave("model.embed.weight", lambda t: {**t, "model.embed.weight": torch.ones(28)})
    found = bare.problems()
    assert "'model.layers.0.norm.weight': the dtype is BF16, the base's F16" in found
    assert "'model.embed.weight': the shape is [28], the base's [7, 4]" in found
    assert bare.report().tensors_edited == 1


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", EDITED)
def test_non_finite_values_in_an_edited_tensor(pair, name, bad):
    info, raw = pair.base.tensors[name], bytearray(pair.shard(name).read_bytes())
    tensor = BASE_TENSORS[name].clone()
    tensor.view(-1)[-1] = bad
    raw[info.begin : info.end] = bits(tensor)
    pair.shard(name).write_bytes(raw)
    found = pair.problems()
    assert f"{info.shard}: tensor '{name}': has 1 NaN" in found


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float64])
def test_non_finite_values_in_every_float_format(tmp_path, dtype):
    good = {"x": torch.ones(5).to(dtype)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", {"y": good["x"]}, extras=False))
    bad = {"y": good["x"], "x": torch.tensor([1, 1, float("nan"), 1, 1]).to(dtype)}
    make_checkpoint(tmp_path / "out", bad, extras=False)
    report = check_integrity(base, tmp_path / "out", added=["x"])
    assert "model.safetensors: tensor 'x': has 1 NaN or infinite values" in report.problems
    assert report.tensors_added == 0


def test_tensors_in_another_order(bare):
    path = bare.shard("model.embed.weight")
    info = bare.base.headers[path.name]
    raw = path.read_bytes()
    entries, data = {"__metadata__": {"format": "pt"}}, b""
    for tensor in reversed(info.tensors):
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + tensor.size],
        }
        data += raw[tensor.begin : tensor.end]
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = bare.problems()
    assert f"{path.name}: the tensors are in another order" in found
    assert bare.report().tensors_equal == len(BASE_TENSORS) - 2


def test_tensors_in_another_shard(bare):
    one, two = bare.base.shards
    parts = {shard: load_file(bare.out / shard) for shard in (one, two)}
    moved = bare.base.tensors["model.scale"].shard
    other = two if moved == one else one
    parts[other]["model.scale"] = parts[moved].pop("model.scale")
    for shard, part in parts.items():
        save_file(part, bare.out / shard, metadata={"format": "pt"})
    index = json.loads((bare.out / INDEX).read_text())
    index["weight_map"]["model.scale"] = other
    (bare.out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    found = bare.problems()
    assert f"{other}: tensor 'model.scale': was in {moved} in the base" in found
    assert f"{INDEX}: the content differs" in found


def test_shards_that_swapped_names(bare):
    one, two = (bare.out / shard for shard in bare.base.shards)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert INDEX in bare.problems()


def test_a_single_file_in_place_of_shards(bare):
    merged = {name: tensor for shard in bare.base.shards for name, tensor in load_file(bare.out / shard).items()}
    save_file(merged, bare.out / "model.safetensors", metadata={"format": "pt"})
    found = bare.problems()
    assert "model.safetensors: the shard is not in the base" in found
    assert "model-00001-of-00002.safetensors: the shard is missing" in found


def test_config_changes_must_be_announced(bare):
    config = json.loads((bare.out / "config.json").read_text())
    config["tied"], config["norm_eps"] = False, 1
    (bare.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    assert "config.json: the content differs" in bare.problems()

    def check(*keys: str):
        return check_integrity(
            bare.base, bare.out, edits=scaled(bare.base, EDITED, 0.5), written_files=["README.md"], changed_config=keys
        ).problems

    assert check("tied", "norm_eps") == ()
    assert check("tied") == ("config.json: the key 'norm_eps' differs from the base's",)
    config["tied"] = 1
    config["norm_eps"] = 1e-05
    (bare.out / "config.json").write_text(json.dumps(config))
    assert check("other") == ("config.json: the key 'tied' differs from the base's",)


def test_additions_must_be_announced(tmp_path):
    for shards in (0, 2):
        base = Checkpoint.open(make_checkpoint(tmp_path / f"base{shards}", shards=shards))
        out = tmp_path / f"out{shards}"
        out.mkdir()
        rewrite(base, out, added={"new": AddedTensor("F32", (2,), bits(torch.ones(2)))})
        assert check_integrity(base, out, added=["new"]).problems == ()
        assert "'new': is not in the base" in "\n".join(check_integrity(base, out).problems)
        lost = Plain("ghost", "F32", (4, 4), 0)
        ghost = EditedTensor(source=lost, target=lost, map=Factors(np.ones((4, 1)), np.ones((4, 1))), along_rows=True)
        missing = check_integrity(base, out, edits=[ghost], added=["new", "newer"]).problems
        assert "'newer': is listed as added but missing" in "\n".join(missing)
        assert "'ghost': is listed as edited but not in the base" in "\n".join(missing)
        index = json.loads((out / INDEX).read_text())
        index["metadata"]["sneaked"] = 1
        (out / INDEX).write_text(json.dumps(index))
        assert check_integrity(base, out, added=["new"]).ok == (shards == 0)


def test_the_manifest_is_held_against_the_files(tmp_path):
    pair = Pair(tmp_path, 2, True)
    (pair.out / "README.md").write_text("another card")
    assert pair.problems() == "README.md: does not match the manifest's SHA-256"
    flip(pair.shard(EDITED[0]), pair.base.tensors[EDITED[0]].begin)
    assert f"{pair.shard(EDITED[0]).name}: does not match the manifest" in pair.problems()
    manifest = read_manifest(pair.out)
    assert manifest is not None
    manifest["files"]["ghost"] = manifest["files"].pop("tokenizer.json")
    (pair.out / MANIFEST).write_text(json.dumps(manifest))
    assert "tokenizer.json: is not in the manifest" in pair.problems()
    assert "ghost: is in the manifest but not in the folder" in pair.problems()
    (pair.out / MANIFEST).write_text("{}")
    assert "weight_edit.json: must be" in pair.problems()


def test_all_problems_are_collected(pair):
    flip(pair.shard("model.scale"), pair.base.tensors["model.scale"].begin)
    flip(pair.shard("model.mask"), pair.base.tensors["model.mask"].begin)
    (pair.out / "tokenizer.json").unlink()
    (pair.out / "new.txt").touch()
    found = pair.problems()
    assert all(name in found for name in ("model.scale", "model.mask", "tokenizer.json", "new.txt"))


def test_files_that_change_during_the_check_are_a_problem(bare):
    edited = Checkpoint.open(bare.out)
    path = bare.shard("model.scale")
    path.write_bytes(path.read_bytes()[:-1])
    report = bare.report(edited)
    assert any(path.name in line and "changed" in line for line in report.problems)
