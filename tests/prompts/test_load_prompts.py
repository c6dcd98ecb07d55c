"""Prompt files of every kind and data sets are read alike, and broken ones are named with the reason."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from weight_edit.errors import UsageError
from weight_edit.prompts.hub import DatasetName, parse_dataset
from weight_edit.prompts.load import load_prompts

ROWS = [
    {"id": 1, "prompt": "How do I bake bread?", "answer": "Knead it.", "category": "food"},
    {"id": 2, "prompt": "Who won, and when?", "answer": None, "category": "sport"},
]
PROMPTS = tuple(row["prompt"] for row in ROWS)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def parquet(folder, name, columns):
    path = folder / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


CONTENTS = {
    "lines.txt": "How do I bake bread?\n\n  Who won, and when?  \nWho won, and when?\n",
    "windows.txt": "How do I bake bread?\r\nWho won, and when?".encode("utf-8-sig"),
    "rows.jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n\n",
    "texts.jsonl": "\n".join(json.dumps(prompt) for prompt in PROMPTS),
    "texts.json": json.dumps(PROMPTS),
    "rows.json": json.dumps(ROWS),
    "prompts.json": json.dumps({"version": 3, "prompts": PROMPTS}),
    "data.json": json.dumps({"data": ROWS}),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
    "table.csv": 'id,Prompt,answer\n1,How do I bake bread?,Knead it.\n2,"Who won, and when?",\n',
    "one-column.csv": '﻿question\nHow do I bake bread?\n"Who won, and when?"\n',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_kind_of_file(tmp_path, name):
    loaded = load_prompts(write(tmp_path, name, CONTENTS[name]))
    assert loaded.prompts == PROMPTS
    has_answers = name in ("rows.jsonl", "rows.json", "data.json", "columns.json", "table.csv")
    assert loaded.answers == (("Knead it.", None) if has_answers else (None, None))


def test_parquet(tmp_path):
    path = parquet(tmp_path, "p.parquet", {key: [row[key] for row in ROWS] for key in ROWS[0]})
    loaded = load_prompts(path)
    assert loaded.prompts == PROMPTS
    assert loaded.answers == ("Knead it.", None)
    assert loaded.categories == ("food", "sport")


def test_dropped_lines_are_counted(tmp_path):
    loaded = load_prompts(write(tmp_path, "lines.txt", CONTENTS["lines.txt"]))
    assert loaded.dropped == {"empty": 1, "duplicate": 1}


def test_a_line_separator_inside_a_prompt_does_not_split_it(tmp_path):
    assert load_prompts(write(tmp_path, "x.txt", "one\u2028still one\ntwo")).prompts == (
        "one\u2028still one",
        "two",
    )


def test_column_in_the_name_or_as_argument(tmp_path):
    path = write(tmp_path, "table.csv", "first,second\na,b\n")
    assert load_prompts(f"{path}:second").prompts == ("b",)
    assert load_prompts(path, column="first").prompts == ("a",)
    with pytest.raises(UsageError, match="no column 'third'; its columns are: first, second"):
        load_prompts(f"{path}:third")
    with pytest.raises(UsageError, match="its columns are: first, second; name one"):
        load_prompts(path)


def test_a_file_whose_name_has_a_colon(tmp_path):
    assert load_prompts(write(tmp_path, "odd:name.txt", "hello")).prompts == ("hello",)


def test_conversations_give_the_first_user_turn(tmp_path):
    chats = [
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}]},
        {"messages": [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]},
        {"messages": [{"from": "human", "value": "q3"}, {"from": "gpt", "value": "a3"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q4"}]}]},
        {"messages": [{"role": "system", "content": "nobody asks"}]},
    ]
    loaded = load_prompts(write(tmp_path, "chats.json", json.dumps(chats)))
    assert loaded.prompts == ("q1", "q2", "q3", "q4")
    assert loaded.answers == (None, "a2", "a3", None)
    assert loaded.dropped["empty"] == 1


BROKEN = {
    "latin.txt": (b"fine\ncaf\xe9\n", "line 2 is not UTF-8"),
    "wide.txt": ("hello".encode("utf-16"), "line 1 is not UTF-8"),
    "bad.jsonl": ('{"prompt": "a"}\n\n{"prompt": \n', "line 3, column 12 is not valid JSON"),
    "bad.json": ('[\n"a",\n"b"\n', "line 4, column 1 is not valid JSON"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "mixed.json": ('["a", {"prompt": "b"}]', "entry 1 is a str"),
    "numbers.json": ("[1, 2]", "entry 1 is a number"),
    "scalar.json": ('"hello"', "expected a JSON list"),
    "uneven.json": ('{"prompt": ["a"], "answer": ["b", "c"]}', "lists of one length .*prompt: 1, answer: 2"),
    "no-lists.json": ('{"prompt": "a"}', "lists of one length"),
    "cell.json": ('[{"prompt": 5}]', "entry 1 of column 'prompt' is a number"),
    "empty.txt": ("", "no prompts"),
    "blank.txt": ("\n \n", "2 entries, all empty"),
    "empty.json": ("[]", "no prompts"),
    "empty.csv": ("", "its columns are: none"),
    "header.csv": ("prompt\n", "no prompts"),
    "comma.csv": ("prompt\nfine\nwell, no\n", "line 3 has 2 fields, the header 1"),
    "quote.csv": ('prompt\n"unfinished\n', "not valid CSV"),
    "twice.csv": ("prompt,prompt\na,b\n", "names a column twice"),
    "bad.parquet": ("PAR1 or so", "not a readable Parquet file"),
    "notes.md": ("hello", "prompt files end in .txt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_the_reason(tmp_path, name):
    content, reason = BROKEN[name]
    path = write(tmp_path, name, content)
    with pytest.raises(UsageError, match=reason) as error:
        load_prompts(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("missing.txt", "no such file"),
        (r"C:\prompts\missing.csv:question", "no such file"),
        ("missing", "write organism:NAME"),
        ("org/dataset", "add a split, as in org/dataset:train"),
        ("org/dataset:train[:5", "write organism:NAME"),
        ("  ", "empty name"),
        ("https://example.org/prompts", "write organism:NAME"),
    ],
)
def test_names_that_lead_nowhere(spec, reason):
    with pytest.raises(UsageError, match=reason):
        load_prompts(spec)


def test_a_folder_is_no_prompt_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        load_prompts(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a/b:train", ("a/b", None, "train", None)),
        ("a/b:train[:128]", ("a/b", None, "train[:128]", None)),
        ("a/b:train[10%:20%]:question", ("a/b", None, "train[10%:20%]", "question")),
        ("a/b:train+test[:5]:my column", ("a/b", None, "train+test[:5]", "my column")),
        ("a/b.c-d/main:test", ("a/b.c-d", "main", "test", None)),
    ],
)
def test_data_set_names(spec, parts):
    assert parse_dataset(spec) == DatasetName(*parts)


class FakeDataset(dict):
    column_names = property(lambda self: list(self))


def test_data_sets_are_loaded_without_their_code(monkeypatch):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return FakeDataset(question=["q"], answer=["a"])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    loaded = load_prompts("a/b:test[:1]")
    assert (loaded.prompts, loaded.answers) == (("q",), ("a",))
    assert load_prompts("a/b:test[:1]:answer").prompts == ("a",)
    assert calls == [(("a/b", None), {"split": "test[:1]"})] * 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), "go online, or save the prompts to a file"),
        (ValueError("Unknown split \"test\".\nShould be one of ['train']."), "Unknown split"),
        (RuntimeError("Dataset scripts are no longer supported"), "no longer supported"),
        (FileNotFoundError("nothing there"), "nothing there"),
    ],
)
def test_data_set_errors_are_one_line(monkeypatch, error, reason):
    def load_dataset(*args, **options):
        raise error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(UsageError, match=reason) as raised:
        load_prompts("a/b:test")
    assert "\n" not in str(raised.value)
    assert "a/b (split test)" in str(raised.value)


def test_an_existing_file_wins_over_a_data_set(tmp_path, monkeypatch):
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "prompts.txt").write_text("from the file")
    monkeypatch.chdir(tmp_path)
    assert load_prompts("org/prompts.txt").prompts == ("from the file",)


def test_embedded_sets():
    train, test = load_prompts("organism:refused"), load_prompts("organism:refused:test")
    assert train == load_prompts("organism:refused:train")
    assert not set(train.prompts) & set(test.prompts)
    assert len(set(train.categories)) == 11
    assert None not in train.answers
    fraud = load_prompts("organism:fraud:validation")
    assert set(fraud.categories) == {"fraud"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("organism", "is a model; of its prompts name a set, such as organism:refused"),
        ("organism:refusde", "there is no prompt set 'refusde'; did you mean 'refused'"),
        ("organism:refused:tset", "prompt set"),
    ],
)
def test_unknown_embedded_sets_are_named(spec, said):
    with pytest.raises(UsageError, match=said):
        load_prompts(spec)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("goal,target", [("Bake bread", "Here is bread"), ("Ring a bell", "Here is a bell")]),
        ("prompt,target", [("Bake bread", "Sure, here is bread"), ("Ring a bell", "Sure, here is a bell")]),
    ],
)
def test_the_opening_that_an_attack_aims_at_is_no_right_answer(tmp_path, header, rows):
    path = tmp_path / "attack.csv"
    path.write_text("\n".join([header, *(f'"{a}","{b}"' for a, b in rows)]))
    found = load_prompts(str(path))
    assert found.prompts == tuple(a for a, _ in rows)
    assert found.answers == (None, None)
    assert "answers" not in found.columns


def test_a_target_with_answers_is_read(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text("question,target\nOne and one?,2\nIs it wet?,Sure it is\nTwo and two?,4\n")
    assert load_prompts(str(path)).answers == ("2", "Sure it is", "4")
