"""JSON in files of either name, several sets in one file, and cells as data sets store them."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts

ROWS = [{"prompt": "one", "id": 1}, {"prompt": "two", "id": 2}]
LINES = "\n".join(map(json.dumps, ROWS))


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.json", LINES + "\n"),
        ("list.jsonl", json.dumps(ROWS)),
        ("indented.jsonl", json.dumps(ROWS, indent=2)),
        ("object.jsonl", json.dumps({"data": ROWS}, indent=2)),
    ],
)
def test_either_kind_is_read_under_either_name(tmp_path, name, text):
    assert load_prompts(write(tmp_path, name, text)).prompts == ("one", "two")


def test_broken_lines_are_named_by_their_number(tmp_path):
    for name in ("x.json", "x.jsonl"):
        with pytest.raises(UsageError, match="line 2, column 12 is not valid JSON"):
            load_prompts(write(tmp_path, name, '{"prompt": "a"}\n{"prompt": \n{"prompt": "b"}'))


@pytest.mark.parametrize(
    "sets",
    [
        {"train": ROWS, "test": ROWS[:1]},
        {"train": ROWS, "test": list(reversed(ROWS))},
        {"train": ["one", "two"], "test": ["three", "four"]},
        {"harmful": ["one", "two"], "harmless": ["three"]},
    ],
)
def test_of_several_sets_in_a_file_one_is_named(tmp_path, sets):
    path = write(tmp_path, "x.json", json.dumps(sets))
    first, second = sets
    with pytest.raises(UsageError, match=rf"holds several sets of prompts: {first} \(2\), {second} .*x.json:{first}"):
        load_prompts(path)
    with pytest.raises(UsageError, match="has no set 'tset'"):
        load_prompts(f"{path}:tset")
    assert load_prompts(f"{path}:{first}").prompts == ("one", "two")


def test_a_column_of_a_set_in_a_file(tmp_path):
    path = write(tmp_path, "x.json", json.dumps({"train": [{"a": "one", "b": "two"}], "test": [{"a": "three"}]}))
    assert load_prompts(f"{path}:train:b").prompts == ("two",)
    with pytest.raises(UsageError, match="no column that is known to hold prompts; its columns are: a, b"):
        load_prompts(f"{path}:train")


def test_lines_of_objects_are_no_text_file(tmp_path):
    with pytest.raises(UsageError, match=r"every line is a JSON object, not a prompt; call the file \.jsonl"):
        load_prompts(write(tmp_path, "x.txt", LINES))


@pytest.mark.parametrize(
    "cell",
    [
        [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
        {"role": ["system", "user"], "content": ["s", "hello"]},
        {"from": ["system", "human"], "value": ["s", "hello"]},
        {"role": "user", "content": "hello"},
    ],
)
def test_conversations_as_data_sets_store_them(tmp_path, cell):
    assert load_prompts(write(tmp_path, "x.json", json.dumps([{"messages": cell}]))).prompts == ("hello",)
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [cell]}), tmp_path / "x.parquet")
    assert load_prompts(str(tmp_path / "x.parquet")).prompts == ("hello",)


@pytest.mark.parametrize("cells", [[0, 1], [True, False], [b"x", b"y"], [{"a": 1}, {"a": 2}]])
def test_cells_that_are_no_prompts_are_refused(tmp_path, cells):
    pyarrow.parquet.write_table(pyarrow.table({"text": cells}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=r"entry 1 of column 'text' is .*, neither a text nor a list of messages"):
        load_prompts(str(tmp_path / "x.parquet"))


def test_an_only_column_of_unknown_name_is_no_prompt(tmp_path, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"label": ["a", "b"]}), tmp_path / "x.parquet")
    for spec in (str(tmp_path / "x.parquet"), write(tmp_path, "x.json", '{"label": ["a", "b"]}')):
        with pytest.raises(UsageError, match=r"only column is called 'label'.*:COLUMN"):
            load_prompts(spec)
        assert load_prompts(f"{spec}:label").prompts == ("a", "b")

    class Stored(dict):
        column_names = property(lambda self: list(self))

    monkeypatch.setattr("datasets.load_dataset", lambda *args, **options: Stored(label=["a"]))
    with pytest.raises(UsageError, match="only column is called 'label'"):
        load_prompts("a/b:train")
    assert load_prompts("a/b:train:label").prompts == ("a",)
