"""CSV files of all makes: the separator is found by a stated rule, and what is ambiguous is refused by name."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.prompts.csv_table import csv_table
from weight_edit.prompts.load import load_prompts

PROMPTS = ("How do I bake bread?", "Who won, and when; really?", 'Say "no"\tand\nleave')


def write(folder, text, name="x.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def written(rows, separator, ending="\r\n", quoting=csv.QUOTE_MINIMAL):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator=ending, quoting=quoting).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_separator_is_found(tmp_path, separator, ending, quoting):
    rows = [["id", "prompt", "category"], *([str(n), text, "a"] for n, text in enumerate(PROMPTS))]
    loaded = load_prompts(write(tmp_path, "\ufeff" + written(rows, separator, ending, quoting)))
    assert loaded.prompts == PROMPTS
    assert loaded.categories == ("a", "a", "a")
    assert loaded.columns == {"prompts": "prompt", "categories": "category"}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from(",;\t|"))
def test_whatever_the_texts_hold_the_table_comes_back(tmp_path_factory, pairs, separator):
    text = written([("question", "note"), *pairs], separator)
    table = csv_table(tmp_path_factory.getbasetemp() / "x.csv", text)
    assert table == {"question": [a for a, _ in pairs], "note": [b for _, b in pairs]}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_commas_and_the_other_separators_in_texts_split_nothing(tmp_path, separator):
    rows = [["prompt", "tag"], ["one, two, three", "x"], ["four, five, six", "y"]]
    assert load_prompts(write(tmp_path, written(rows, separator))).prompts == ("one, two, three", "four, five, six")


def test_a_spreadsheets_own_line_says_the_separator(tmp_path):
    assert load_prompts(write(tmp_path, "sep=;\r\nprompt;a\r\nhello, you;b\r\n")).prompts == ("hello, you",)
    with pytest.raises(UsageError, match="line 3 has 3 fields"):
        load_prompts(write(tmp_path, "sep=;\r\nprompt;a\r\nhello;b;c\r\n"))


def test_quotes_behind_a_space_are_quotes(tmp_path):
    assert load_prompts(write(tmp_path, 'id, prompt\n1, "well, no"\n')).prompts == ("well, no",)


AMBIGUOUS = {
    # without a header the first prompt was lost, or taken for a name
    "no header, one column": ("How do I bake bread?\nWho won?\n", "only column is called 'How do I bake bread.'"),
    "no header, semicolons": ("1;How do I bake bread?\n2;Who won?\n", "columns are: 1, How do I bake bread"),
    "no header, commas": ("How do I bake?,food\nWho won?,sport\n", "put a header with prompt first"),
    # labels became prompts
    "labels": ("label\n0\n1\n", "only column is called 'label'"),
    "two separators": ("prompt;id,text\na;b,c\n", "separated by commas or semicolons"),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_with_the_remedy(tmp_path, what):
    text, reason = AMBIGUOUS[what]
    with pytest.raises(UsageError, match=reason) as raised:
        load_prompts(write(tmp_path, text))
    assert "x.csv" in str(raised.value)
    assert ":COLUMN" in str(raised.value) or "sep=;" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_only_column_is_taken_when_it_is_named(tmp_path):
    assert load_prompts(write(tmp_path, "anything\nhello\n") + ":anything").prompts == ("hello",)


FOREIGN = {
    "utf-16": ("prompt\nhello\n", "utf-16", "not UTF-8"),
    "utf-16 without its mark": ("prompt\nhello\n", "utf-16-le", "NUL characters, as UTF-16 has"),
    "windows-1252": ("prompt\n“hello” café\n", "cp1252", "line 2 is not UTF-8"),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.jsonl"])
def test_other_encodings_are_refused(tmp_path, what, name):
    text, encoding, reason = FOREIGN[what]
    with pytest.raises(UsageError, match=f"{reason}.*save the file as UTF-8"):
        load_prompts(write(tmp_path, text, name, encoding))


def test_messages_in_a_cell_are_json(tmp_path):
    cell = '[{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]'
    assert load_prompts(write(tmp_path, written([["messages"], [cell]], ","))).prompts == ("hello",)
    with pytest.raises(UsageError, match="looks like a list of messages, but is no JSON"):
        load_prompts(write(tmp_path, written([["messages"], [cell.replace('"', "'")]], ",")))
