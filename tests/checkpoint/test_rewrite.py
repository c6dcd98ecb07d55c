"""A rewrite changes the bytes it is asked to change and not one more."""

import errno
import json
import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_samples import BASE_TENSORS, bits, content, data_start, edit_of, make_checkpoint
from tests.helpers.edit_samples import Map, adding, along, random_map
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.manifest import record
from weight_edit.checkpoint.rewrite.output import staged
from weight_edit.checkpoint.rewrite.planning import ADDED_SHARD, AddedTensor, plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain
from weight_edit.errors import UnsupportedError, UsageError

INDEX = "model.safetensors.index.json"
HEAD = torch.randn(7, 4, generator=torch.Generator().manual_seed(5)).bfloat16()


FLOATING = tuple(name for name, tensor in BASE_TENSORS.items() if tensor.is_floating_point() and tensor.ndim)


def added_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, AddedTensor]:
    names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}
    return {name: AddedTensor(names[t.dtype], tuple(t.shape), bits(t)) for name, t in tensors.items()}


@pytest.fixture(params=[0, 1, 3], ids=["single", "one-shard", "three-shards"])
def source(request, tmp_path) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(tmp_path / "source", shards=request.param))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("names", [(), FLOATING], ids=["none", "all"])
def test_identity_edits_give_the_same_folder(source, out, names):
    result = rewrite(source, out, adding(source, names, 0.0))
    assert content(out) == content(source.path)
    assert set(result.edited) == set(names)
    assert result.bytes_copied + result.bytes_edited == source.size
    assert {name: record(out, name, r.origin) for name, r in result.files.items()} == result.files
    assert set(result.files) == set(source.files)


def test_only_the_edited_tensors_change(source, out):
    names = ("model.layers.0.out.weight", "model.layers.1.out.weight", "model.empty")
    before = content(source.path)
    result = rewrite(source, out, adding(source, names))
    after, edited = content(out), Checkpoint.open(out)
    assert content(source.path) == before
    for name, info in source.tensors.items():
        wanted = BASE_TENSORS[name] + 1 if name in names else BASE_TENSORS[name]
        assert bits(edited.read(name)) == bits(wanted)
        start = data_start(source.path / info.shard)
        assert after[info.shard][:start] == before[info.shard][:start]
    for name in set(before) - set(source.shards):
        assert after[name] == before[name]
    assert result.bytes_edited == sum(source.tensors[name].size for name in names)
    touched = {source.tensors[name].shard for name in names if source.tensors[name].size}
    assert {n for n, r in result.files.items() if r.origin == "edited"} == touched


def test_permissions_are_those_of_new_files(source, out):
    for name in source.files:
        (source.path / name).chmod(0o400)
    plain = out.parent / "plain"
    plain.touch()
    rewrite(source, out, adding(source, ["model.embed.weight"]))
    modes = {stat.S_IMODE((out / name).stat().st_mode) for name in source.files}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}


def test_links_become_files(tmp_path, out):
    folder = make_checkpoint(tmp_path / "source")
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "real")
    (folder / "model.safetensors").symlink_to("weights/real")
    rewrite(Checkpoint.open(folder), out)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert content(out) == content(folder)


def test_tensors_that_are_not_there_are_named(source, out):
    edits = adding(source, ["model.embed.weight"])
    (source.path / "other").mkdir()
    other = Checkpoint.open(make_checkpoint(source.path.parent / "other", {"x": torch.ones(1)}))
    with pytest.raises(UsageError, match=r"model\.embed"):
        rewrite(other, out, edits)
    with pytest.raises(UsageError, match=r"model\.scale"):
        rewrite(source, out, added=added_tensors({"model.scale": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"two edits of model\.embed"):
        rewrite(source, out, edits * 2)
    assert not any(out.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("axis", [0, 1])
def test_non_finite_values_are_refused_before_and_after(tmp_path, out, dtype, bad, axis):
    tensors = {"good": torch.ones(3, 2).to(dtype), "bad": torch.tensor([[1.0, 2, 3], [1, bad, 4]]).to(dtype)}
    source = Checkpoint.open(make_checkpoint(tmp_path / "source", tensors))
    with pytest.raises(UsageError, match=r"'bad' has 1 NaN|'bad' is not finite after the edit; the source is damaged"):
        rewrite(source, out, [along(source, "bad", axis, random_map(tensors["bad"].shape[axis], 1, 0))])
    (tmp_path / "out2").mkdir()
    huge = float(torch.finfo(dtype).max)
    width = tensors["good"].shape[axis]
    twice = Map(-np.eye(width) * huge, np.eye(width), np.full(width, huge))
    with pytest.raises(UsageError, match=r"'bad' has NaN or infinite values, though no edit touches it"):
        rewrite(source, tmp_path / "out2", adding(source, ["good"]))
    sound = Checkpoint.open(make_checkpoint(tmp_path / "sound", {"good": tensors["good"]}))
    (tmp_path / "out3").mkdir()
    with pytest.raises(UsageError, match=r"'good'.*(too large|not finite)"):
        rewrite(sound, tmp_path / "out3", [along(sound, "good", axis, twice)])


def test_added_tensors_go_to_a_shard_of_their_own(source, out):
    added = {"lm_head.weight": HEAD, "bias": torch.zeros(3), "z": torch.tensor(4)}
    result = rewrite(
        source, out, adding(source, ["model.layers.0.norm.weight"]), added=added_tensors(added), config={"tied": False}
    )
    edited = Checkpoint.open(out)
    index = json.loads((out / INDEX).read_text())
    assert edited.index_file == INDEX
    assert set(index["weight_map"]) == set(edited.tensors) == {*BASE_TENSORS, *added}
    assert index["metadata"]["total_size"] == sum(info.size for info in edited.tensors.values())
    assert list(index["weight_map"])[-3:] == list(added)
    merged = {}
    for shard in edited.shards:
        merged |= load_file(out / shard)
    for name, tensor in {
        **BASE_TENSORS,
        **added,
        "model.layers.0.norm.weight": BASE_TENSORS["model.layers.0.norm.weight"] + 1,
    }.items():
        assert bits(merged[name]) == bits(tensor)
    if source.index_file is None:
        assert not (out / "model.safetensors").exists()
        assert edited.shards == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    else:
        assert set(edited.shards) == {*source.shards, ADDED_SHARD}
    assert result.added == tuple(added)
    assert json.loads((out / "config.json").read_text()) == {**source.config, "tied": False}


def test_tensors_can_be_added_again(tmp_path, out):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source", shards=2))
    rewrite(source, out, added=added_tensors({"one": torch.ones(1)}))
    (tmp_path / "again").mkdir()
    rewrite(Checkpoint.open(out), tmp_path / "again", added=added_tensors({"two": torch.ones(2)}))
    again = Checkpoint.open(tmp_path / "again")
    assert {"one", "two"} <= set(again.tensors)


def test_adding_refuses_names_that_are_taken(tmp_path, out):
    folder = make_checkpoint(tmp_path / "source", shards=2)
    save_file({"one": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match="is in the way"):
        rewrite(Checkpoint.open(folder), out, added=added_tensors({"two": torch.ones(1)}))
    (folder / "config.json").write_text('{"transformers_weights": "model.safetensors"}')
    with pytest.raises(UnsupportedError, match="transformers_weights"):
        rewrite(Checkpoint.open(folder), out, added=added_tensors({"two": torch.ones(1)}))


def test_config_keeps_order_layout_and_other_values(tmp_path, out):
    folder = make_checkpoint(tmp_path / "source")
    text = '{\n  "z": 1e-05,\n  "a": [\n    1,\n    2\n  ],\n  "é": null,\n  "flag": true\n}'
    (folder / "config.json").write_text(text, encoding="utf-8")
    result = rewrite(Checkpoint.open(folder), out, config={"flag": False, "new": 1})
    wanted = text.replace("true\n}", 'false,\n  "new": 1\n}')
    assert (out / "config.json").read_text(encoding="utf-8") == wanted
    assert result.files["config.json"].origin == "edited"


def test_config_that_does_not_change_is_copied(tmp_path, out):
    folder = make_checkpoint(tmp_path / "source")
    (folder / "config.json").write_text('{"flag":true,   "x":1}')
    result = rewrite(Checkpoint.open(folder), out, config={"flag": True, "x": 1})
    assert result.files["config.json"].origin == "copied"
    assert (out / "config.json").read_text() == '{"flag":true,   "x":1}'


def test_files_replace_and_add(source, out):
    files = {"README.md": b"card", "tokenizer.json": b"{}", "deep/er/x": b"x"}
    result = rewrite(source, out, files=files)
    assert {name: (out / name).read_bytes() for name in files} == files
    assert [result.files[name].origin for name in files] == ["added", "replaced", "added"]


@pytest.mark.parametrize("name", ["config.json", "weight_edit.json", INDEX])
def test_files_cannot_be_those_that_rewrite_writes(source, out, name):
    with pytest.raises(ValueError, match="cannot be given"):
        rewrite(source, out, files={name: b""})


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "", "a//b"])
def test_files_stay_in_the_folder(source, out, name):
    with pytest.raises(UsageError):
        rewrite(source, out, files={name: b""})


def test_the_folder_must_be_empty(source, out):
    (out / "x").touch()
    with pytest.raises(ValueError, match="empty"):
        rewrite(source, out)


def test_the_sources_manifest_and_tool_folders_stay_behind(tmp_path, out):
    folder = make_checkpoint(tmp_path / "source")
    (folder / "weight_edit.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    result = rewrite(Checkpoint.open(folder), out)
    assert set(content(out)) == set(content(folder)) - {"weight_edit.json", ".git/HEAD"}
    assert result.skipped == (".git",)
    assert "consolidated.safetensors" in result.other_weights


def test_notices_a_source_that_changes_meanwhile(source, out):
    shard = source.tensors["model.embed.weight"].shard

    class Meddling(Plain):
        def load(self, *which):
            os.utime(source.path / shard, ns=(1, 1))
            return super().load(*which)

    storage = Meddling("model.embed.weight", "F32", (7, 4), 1)
    with pytest.raises(UsageError, match="changed while"):
        rewrite(source, out, [EditedTensor(source=storage, target=storage, map=None, along_rows=False)])


def test_the_plan_says_how_much_is_written(source, out):
    plan = plan_rewrite(source, [], added=added_tensors({"new": HEAD}))
    write_checkpoint(plan, out)
    assert plan.size == sum(len(data) for data in content(out).values())
    assert {file.name: file.size for file in plan.files} == {name: len(data) for name, data in content(out).items()}


FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9).filter(lambda n: n[:2] != "__"),
    st.tuples(st.sampled_from([*FLOATS, torch.int64, torch.uint8]), st.lists(st.integers(0, 5), max_size=3)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(LAYOUTS, st.integers(0, 4), st.data())
def test_any_layout_round_trips(tmp_path_factory, layout, shards, data):
    tensors = {
        name: torch.arange(int(torch.Size(shape).numel())).reshape(shape).to(dtype)
        for name, (dtype, shape) in layout.items()
    }
    shards = min(shards, len(tensors))
    floats = sorted(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    chosen = data.draw(st.sets(st.sampled_from(floats))) if floats else set()
    root = tmp_path_factory.mktemp("layout")
    source = Checkpoint.open(make_checkpoint(root / "source", tensors, shards, extras=False))
    (root / "out").mkdir()
    rewrite(source, root / "out", adding(source, chosen))
    edited = Checkpoint.open(root / "out")
    assert list(edited.tensors) == list(source.tensors)
    for name, tensor in tensors.items():
        assert bits(edited.read(name)) == bits(tensor + 1 if name in chosen else tensor)


def test_transformers_loads_an_untied_model(tmp_path, out):
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.tensor([[1, 5, 9, 30]])
    head = torch.randn(31, 16)
    for number, size in enumerate(["5GB", "8KB"]):
        folder, target = tmp_path / f"tied{number}", out / str(number)
        model.save_pretrained(folder, max_shard_size=size)
        source = Checkpoint.open(folder)
        assert "lm_head.weight" not in source.tensors
        assert (len(source.shards) > 1) == (size == "8KB")
        target.mkdir(parents=True)
        rewrite(source, target, added=added_tensors({"lm_head.weight": head}), config={"tie_word_embeddings": False})
        loaded, info = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            hidden = model.model(ids).last_hidden_state
            assert torch.allclose(loaded(ids).logits, hidden @ head.T, atol=1e-5)
            assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["tokenizer.json", "assets/deep/vocab.bin", "modeling_tiny.py"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_small_file_that_changes_after_the_plan_is_noticed(tmp_path, name, linked):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    plan = plan_rewrite(source, adding(source, ["model.embed.weight"]))
    with (tmp_path / "source" / name).open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="changed"), staged(tmp_path / "out") as folder:
        write_checkpoint(plan, folder, linked=linked)
    assert not (tmp_path / "out").exists()


def test_a_source_on_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))

    def broken(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(UsageError, match="cannot be read: Input/output error"), staged(tmp_path / "out") as folder:
        rewrite(source, folder, [])


def test_a_folder_in_the_place_of_a_file_that_is_written_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "source")
    (folder / "weight_edit.json").mkdir()
    (folder / "weight_edit.json" / "x").touch()
    source = Checkpoint.open(folder)
    with pytest.raises(UsageError, match=r"weight_edit\.json"):
        plan_rewrite(source, adding(source, ["model.embed.weight"]))


def test_empty_and_scalar_tensors_are_edited_to_what_they_are(tmp_path):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    with staged(tmp_path / "out") as folder:
        rewrite(source, folder, [edit_of(source, "model.empty", None), edit_of(source, "model.scale", None)])
    before, after = content(tmp_path / "source"), content(tmp_path / "out")
    assert after == before
    assert list_files(tmp_path / "out")[0] == list_files(tmp_path / "source")[0]
