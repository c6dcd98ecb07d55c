"""What hung, ended in a traceback or was found too late: one line and an exit code each, in bounded time."""

import json
import os
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from tests.helpers.input_fuzzing import CASES, Sample, treat
from tests.helpers.mutations import time_limit
from weight_edit import bake
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.file import KEY, read_rows
from weight_edit.directions.find import find_directions
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.organism.embedded import folder
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import load
from weight_edit.utils import bounded_process as limited

FACTS = {"method": "mean-difference", "layer": 3, "position": -1}


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(folder("organism"), tmp_path / "model"))


def changed(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def directions_file(path: Path, metadata: str | None = None, rows: np.ndarray | None = None) -> Path:
    rows = np.eye(1, 128, dtype=np.float32) if rows is None else rows
    save_file({"direction": rows}, path, metadata=None if metadata is None else {KEY: metadata})
    return path


def one_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


# Pipes and devices.


@pytest.mark.parametrize("ending", ["txt", "jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_prompts_that_are_no_files(tmp_path, ending, kind):
    path = tmp_path / f"prompts.{ending}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with time_limit(10), pytest.raises(UsageError, match="not a regular file"):
        load_prompts(str(path))


def test_recipes_overlays_directions_and_models_that_are_no_files(tmp_path, model, call):
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    calls = [
        *(("run", path, "--out", tmp_path / "run") for path in (pipe, device)),
        ("run", "recipes/organism.yaml", "--with", pipe, "--out", tmp_path / "run"),
        *(("bake", "organism", "--directions", path, "--out", tmp_path / "out") for path in (pipe, device)),
        ("evaluate", model, "--refused", "organism:refused:test"),
    ]
    with time_limit(60):
        for arguments in calls:
            result = call(*arguments)
            assert result.code == 2, arguments
            assert one_line(result.err), result.err
            assert "not a regular file" in result.err


# Chat templates.


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ '%1000000000000d' % 1 }}",
    ],
)
def test_templates_that_never_end_or_fill_the_memory(monkeypatch, template):
    monkeypatch.setattr(limited, "SECONDS", 0)
    tokenizer = load("organism").tokenizer
    tokenizer.chat_template = template + tokenizer.chat_template
    found: list[str] = []

    def work() -> None:
        with pytest.raises(UsageError) as caught:
            ChatFormat(tokenizer)
        found.append(str(caught.value))

    # A server's threads, too, are none that a signal reaches.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert len(found) == 1
    assert "1 GiB of memory" in found[0]
    assert one_line(found[0])


# Configs and tokenizers.


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"hidden_size": 0}, "a size in config.json is 0"),
        ({"intermediate_size": 0}, "a size in config.json is 0"),
        ({"vocab_size": 0}, "cannot be built"),
        ({"dtype": 5}, "dtype is '5', not a floating type's name"),
        ({"dtype": "int8"}, "dtype is 'torch.int8'"),
        ({"_attn_implementation": 5}, "asks for _attn_implementation 5, which cannot be had here"),
    ],
)
def test_configs_with_nonsense(model, tmp_path, entry, named):
    changed(model / "config.json", **entry)
    with pytest.raises(WeightEditError, match=named):
        load(model)
    if "_attn_implementation" not in entry:
        with pytest.raises(WeightEditError, match=named):
            bake(model, directions_file(tmp_path / "d.safetensors"), tmp_path / "out")


@pytest.mark.parametrize("wrong", [100_000, 2**31])
def test_token_ids_beyond_the_vocabulary(model, wrong):
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"] = {token: number + wrong for token, number in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] += wrong
    (model / "tokenizer.json").write_text(json.dumps(content))
    loaded = load(model)
    tokens = ChatFormat(loaded.tokenizer).encode("Hello?")
    with pytest.raises(UsageError, match=r"has the token (1|2)\d+, but the model has embeddings"):
        next_token_logprobs(loaded, [tokens], description=None)


@pytest.mark.parametrize("wrong", [-1, "x", None, 2**40])
def test_token_ids_that_are_none(model, wrong):
    content = json.loads((model / "tokenizer.json").read_text())
    content["added_tokens"][0]["id"] = wrong
    (model / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="has no tokenizer that transformers can load") as caught:
        load(model)
    assert one_line(str(caught.value))


@pytest.mark.parametrize("wrong", [-1, 10**9])
def test_a_sequence_with_a_token_that_the_model_has_not(small_model, wrong):
    with pytest.raises(UsageError, match=f"text 2 has the token {wrong}, but the model has embeddings for 0 to 47"):
        next_token_logprobs(small_model("llama"), [[1, 2], [1, wrong]], description=None)


def test_end_and_padding_tokens_beyond_the_vocabulary_are_none(model):
    changed(model / "generation_config.json", eos_token_id=[2**40, 3], pad_token_id=2**40)
    loaded = load(model)
    loaded.tokenizer.pad_token_id = 10**6
    assert loaded.pad_id < loaded.embeddings
    assert len(generate(loaded, [[1, 2], [1, 2, 3, 4]], max_new_tokens=2, description=None)) == 2


# Directions.


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ('{"layer": NaN}', "NaN"),
        ('{"position": Infinity}', "Infinity"),
        ('{"layer": 1e999}', "too large"),
        ('{"method": "\\ud800"}', "Unicode"),
        ('{"prompts": {"target": {"name": "\\udfff"}}}', "Unicode"),
        ('{"seed": ' + "9" * 5000 + "}", "5000 digits"),
        ('{"method": "a\\n\\n# Not refused"}', "one printable line"),
        ('{"method": "a\\u2028b"}', "one printable line"),
        ('{"revision": "a\\rb"}', "one printable line"),
        ('{"method": 5}', "one printable line"),
        ('{"layer": -1}', "number of a layer"),
        ('{"layer": true}', "number of a layer"),
        ('{"layer": 1e3}', "number of a layer"),
        ('{"layer": 1180591620717411303424}', "number of a layer"),
        ('{"position": [0]}', "number of a token"),
        ('{"papers": "2406.11717"}', "list of arXiv ids"),
        ('{"papers": ["2406.11717) x"]}', "list of arXiv ids"),
        ("[" * 300 + "]" * 300, "nested too deeply"),
    ],
)
def test_metadata_that_no_manifest_can_hold_is_refused_before_a_shard_is_written(tmp_path, metadata, named):
    path = directions_file(tmp_path / "d.safetensors", metadata)
    with pytest.raises(UsageError, match=named) as caught:
        bake("organism", path, tmp_path / "work" / "out")
    assert str(path) in str(caught.value)
    assert one_line(str(caught.value))
    assert not (tmp_path / "work").exists()


def test_metadata_given_in_python_is_held_to_the_same():
    rows = np.eye(1, 128, dtype=np.float32)
    for facts in ({"method": "a\nb"}, {"prompts": {"n": float("nan")}}, {"prompts": object()}, {"layer": 2**70}):
        with pytest.raises(UsageError, match="metadata"):
            DirectionRows(rows, FACTS | facts)
    assert DirectionRows(rows, FACTS | {"x": float("nan")}).metadata["layer"] == 3


def test_more_directions_than_they_have_entries_take_no_memory(tmp_path):
    path = tmp_path / "d.safetensors"
    header = {"direction": {"dtype": "F32", "shape": [1 << 20, 1], "data_offsets": [0, 1 << 22]}}
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + (1 << 22))
    with time_limit(10), pytest.raises(UsageError, match="more than their 1 entries can span"):
        read_rows(path)


# Prompts.


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("wrong", ["9" * 5000, "1e999", '"\\ud800"', "[" * 300 + "]" * 300])
def test_json_prompts_with_what_python_cannot_hold(tmp_path, ending, wrong):
    path = tmp_path / f"p.{ending}"
    row = f'{{"prompt": "Who?", "id": {wrong}}}'
    path.write_text(f"[{row}]" if ending == "json" else f'{{"prompt": "What?"}}\n{row}\n')
    with pytest.raises(UsageError, match=f"line {1 if ending == 'json' else 2} is not valid JSON"):
        load_prompts(str(path))


@pytest.mark.parametrize("kind", [pyarrow.date32(), pyarrow.date64(), pyarrow.timestamp("ms"), pyarrow.duration("ms")])
def test_parquet_dates_out_of_range(tmp_path, kind):
    days = 2**31 - 1 if kind == pyarrow.date32() else 2**62
    table = pyarrow.table({"prompt": ["Who?", "What?"], "at": pyarrow.array([days, 0], kind)})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(UsageError, match="not a readable Parquet file") as caught:
        load_prompts(str(tmp_path / "p.parquet"))
    assert one_line(str(caught.value))


def test_parquet_of_more_rows_than_prompts_ever_have(tmp_path, monkeypatch):
    monkeypatch.setattr("weight_edit.prompts.files._MAX_ROWS", 2)
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", "b", "c"]}), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match="3 rows are too many"):
        load_prompts(str(tmp_path / "p.parquet"))


# Seeds and names.


@pytest.mark.parametrize("seed", [2**70, 2**32, -1])
def test_seeds_that_not_everything_takes(seed, call, tmp_path, small_model):
    with pytest.raises(UsageError, match="seed"):
        load_recipe("recipes/organism.yaml", [f"seed={seed}"])
    prompts = load_prompts("organism:refused")
    with pytest.raises(UsageError, match="out of range"):
        find_directions(small_model("llama"), prompts, load_prompts("organism:answered"), seed=seed)
    arguments = ("--target", "organism:refused", "--baseline", "organism:answered", "--out", tmp_path / "d.safetensors")
    result = call("find", "organism", *arguments, f"--seed={seed}")
    assert result.code == 2
    assert one_line(result.err)


def test_names_with_a_nul(tmp_path):
    path = directions_file(tmp_path / "d.safetensors")
    for work in (
        lambda: bake("a\0b", path, tmp_path / "out"),
        lambda: bake("organism", "a\0b", tmp_path / "out"),
        lambda: bake("organism", path, f"{tmp_path}/a\0b"),
        lambda: bake("organism", path, f"{tmp_path}/a\0b/c"),
        lambda: load_prompts("a\0b.txt"),
        lambda: load_prompts("a\0b:c"),
        lambda: load_recipe("a\0b"),
        lambda: load_recipe("recipes/organism.yaml", ['model="a\\0b"']),
        lambda: load("a\0b"),
    ):
        with pytest.raises(UsageError):
            work()


def test_a_terminal_is_told_nothing_by_names(call, tmp_path):
    result = call("run", tmp_path / "a\x1b[31m\x07.yaml")
    assert result.code == 2
    assert "\\x1b[31m\\x07" in result.err
    assert "\x1b" not in result.err


# Manifests.


@pytest.mark.parametrize(
    "entry",
    [
        {"failed": 5},
        {"failed": "no"},
        {"failed": [5]},
        {"tensors": {"a": 1}},
        {"tensors": [None]},
        {"tensors_added": "x"},
        {"config_changed": 1.5},
        {"tensors_unknown": [[]]},
        {"kept_in_front": 5},
        {"weights_not_edited": True},
        {"source": "organism"},
        {"edit": [1]},
        {"edit": {"steps": 5}},
        {"edit": {"steps": []}},
        {"edit": {"steps": ["ablate"]}},
        {"mtp": [1]},
        {"measurements": "none"},
        {"weight_edit": 5},
        {"base_card": "../../etc/passwd"},
        {"base_card": 5},
    ],
)
def test_manifests_with_an_entry_of_another_kind(tmp_path, entry, call):
    path = tmp_path / "weight_edit.json"
    path.write_text(json.dumps({"files": {}, **entry}))
    with pytest.raises(UsageError, match=next(iter(entry))):
        read_manifest(tmp_path)
    for arguments in (("verify", "organism", tmp_path, "--weights-only"), ("push", tmp_path, "a/b", "--dry-run")):
        result = call(*arguments)
        assert result.code == 2
        assert one_line(result.err)


# All of it, by chance: more of it in benchmarks/fuzz_inputs.py.


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


@pytest.mark.parametrize("seed", range(3 * len(CASES)))
def test_hostile_inputs_and_forged_outputs(sample, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(limited, "SECONDS", 0)
    treat(sample, tmp_path, seed)
