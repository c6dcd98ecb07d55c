"""Public sets by name: what the data says of each, which rows are taken, and what is said of where they are from."""

import re

import pytest
from datasets.exceptions import DatasetNotFoundError

from weight_edit.errors import UsageError
from weight_edit.prompts.hub import Gated
from weight_edit.prompts.load import check_prompts, load_prompts
from weight_edit.prompts.public_sets import Chosen, chosen_set, public_sets
from weight_edit.prompts.readings import readings
from weight_edit.utils.progress import quieted

NAMES = ("advbench", "harmbench", "jailbreakbench", "strongreject", "sorrybench", "xstest", "orbench", "alpaca")
FIELDS = {"id", "revision", "licence", "gated", "config", "split", "column", "where", "categories", "size"}


class FakeDataset(dict):
    column_names = property(lambda self: list(self))


@pytest.fixture
def hub(monkeypatch):
    """Rows by the id of a data set, in place of the Hub; the calls that were made."""
    tables, calls = {}, []

    def load_dataset(name, config=None, **options):
        calls.append((name, config, options))
        return FakeDataset(tables[name])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    tables["calls"] = calls
    return tables


def test_every_set_says_what_it_is_and_where_each_entry_was_read():
    assert set(NAMES) < set(public_sets())
    for name, found in public_sets().items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", found.id), name
        # A branch moves, and so does what is measured on it.
        assert found.revision is None or re.fullmatch(r"[0-9a-f]{40}", found.revision), name
        assert found.parts, name
        assert found.open is None or (found.gated and not public_sets()[found.open].gated)
        pages = {**found.sources, **found.quoted}
        assert all(url.startswith("https://") for url in pages)
        stated = {"id", "split", "column", "gated"} | ({"licence"} if found.licence else set())
        stated |= {"revision"} if found.revision else set()
        for part in found.parts.values():
            stated |= {"config"} if part.config else set()
            stated |= {"where"} if part.where else set()
            stated |= {"categories"} if part.categories else set()
            stated |= {"size"} if part.size else set()
        told = {entry for entries in pages.values() for entry in entries}
        assert told <= FIELDS, name
        assert stated <= told, (name, stated - told)
        assert "id" in {entry for entries in found.sources.values() for entry in entries}, name


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("advbench", ("advbench", "train", None, None)),
        ("AdvBench", ("advbench", "train", None, None)),
        ("jailbreakbench", ("jailbreakbench", "harmful", None, None)),
        ("jailbreakbench:benign", ("jailbreakbench", "benign", None, None)),
        ("alpaca[:128]", ("alpaca", "train", None, 128)),
        ("harmful-behaviors:train[350:]", ("harmful-behaviors", "train", 350, None)),
        ("orbench:80k[10:20]", ("orbench", "80k", 10, 20)),
    ],
)
def test_names_parts_and_rows(spec, chosen):
    name, part, start, stop = chosen
    assert chosen_set(spec) == Chosen(spec=spec, name=name, part=part, start=start, stop=stop)
    check_prompts(spec)


@pytest.mark.parametrize("spec", ["advbench.txt", "./advbench", "org/advbench:train", "organism:refused", "missing"])
def test_other_names_are_no_public_sets(spec):
    assert chosen_set(spec) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("advbnech", "did you mean 'advbench'"),
        ("jailbreakbnch:benign", "did you mean 'jailbreakbench'"),
        ("jailbreakbench:benig", "part of the prompt set jailbreakbench 'benig'; did you mean 'benign'"),
        ("xstest:train", r"choose one of safe, unsafe"),
        ("alpaca[:10%]", r"write the rows as numbers, such as alpaca:train\[:128\]"),
        ("somethingelse", "a public set's name"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(spec, said):
    with pytest.raises(UsageError, match=said):
        check_prompts(spec)
    with pytest.raises(UsageError, match=said):
        load_prompts(spec)


def test_the_rows_are_those_of_the_part_at_the_pinned_commit(hub):
    hub["Paul/XSTest"] = {
        "id": [1, 2, 3, 4, 5],
        "prompt": ["a", "b", "c", "d", "e"],
        "type": ["homonyms", "contrast_homonyms", "definitions", "definitions", "definitions"],
        "label": ["safe", "unsafe", "safe", "safe", "safe"],
    }
    safe = load_prompts("xstest")
    assert (safe.prompts, safe.categories[:2]) == (("a", "c", "d", "e"), ("homonyms", "definitions"))
    assert load_prompts("xstest:unsafe").prompts == ("b",)
    # Rows are counted among those of the part.
    assert load_prompts("xstest:safe[1:3]").prompts == ("c", "d")
    revision = public_sets()["xstest"].revision
    assert hub["calls"] == [("Paul/XSTest", None, {"split": "train", "revision": revision})] * 3
    assert safe.source == {
        "dataset": "Paul/XSTest",
        "revision": revision,
        "split": "train",
        "where": "label is safe",
        "licence": "cc-by-4.0",
    }
    assert safe.take(2).source == safe.source


def test_an_empty_cell_and_the_first_of_several_turns(hub):
    hub["tatsu-lab/alpaca"] = {
        "instruction": ["one", "two", "three"],
        "input": ["", "a text", None],
        "output": ["x", "y", "z"],
    }
    hub["sorry-bench/sorry-bench-202503"] = {
        "turns": [["first", "second"], ["slang"], []],
        "prompt_style": ["base", "slang", "base"],
        "category": ["1", "1", "2"],
    }
    alpaca = load_prompts("alpaca")
    assert alpaca.prompts == ("one", "three")
    # What a data set has beside its prompts is no right answer unless the data says so.
    assert alpaca.answers == (None, None)
    assert load_prompts("sorrybench").prompts == ("first",)


def test_what_changed_on_the_hub_is_named(hub):
    hub["walledai/AdvBench"] = {"goal": ["a"]}
    with pytest.raises(UsageError, match="walledai/AdvBench has no column 'prompt'; its columns are: goal"):
        load_prompts("advbench")


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ("advbench", "; or take 'harmful-behaviors', which asks for nothing"),
        ("wildguardtest", ""),
        ("walledai/XSTest:test", ""),
    ],
)
def test_a_gated_set_says_that_its_terms_have_to_be_accepted(monkeypatch, spec, more):
    def load_dataset(name, *args, **options):
        message = f"Dataset '{name}' is a gated dataset on the Hub. You must be authenticated to access it."
        raise DatasetNotFoundError(message)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(
        UsageError, match=r"is gated: accept its terms on https://huggingface.co/datasets/\S+,"
    ) as raised:
        load_prompts(spec)
    assert str(raised.value).endswith(f"then log in with `hf auth login` or set HF_TOKEN{more}")
    assert issubclass(Gated, UsageError)


def test_it_is_said_what_was_read_and_under_which_licence(hub):
    hub["mlabonne/harmful_behaviors"] = {"text": ["a", "b"]}
    hub["JailbreakBench/JBB-Behaviors"] = {"Goal": ["c"], "Target": ["d"], "Category": ["e"]}
    said = []
    with readings(said.append) as found:
        load_prompts("harmful-behaviors:test")
        load_prompts("jailbreakbench")
    revisions = [public_sets()[name].revision[:12] for name in ("harmful-behaviors", "jailbreakbench")]
    assert said[0].startswith(
        f"harmful-behaviors:test: 2 prompts from column 'text' of mlabonne/harmful_behaviors at {revisions[0]} "
        "(licence: not stated)"
    )
    assert f"of JailbreakBench/JBB-Behaviors at {revisions[1]} (licence: mit), categories from 'Category'" in said[1]
    assert found[1].to_dict()["source"]["split"] == "harmful"


def test_the_public_set_wins_over_what_is_called_like_it_and_that_is_said(hub, tmp_path, monkeypatch, capsys):
    hub["walledai/AdvBench"] = {"prompt": ["from the Hub"]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "advbench").mkdir()
    (tmp_path / "advbench.txt").write_text("from the file")
    with quieted(False):
        assert load_prompts("advbench").prompts == ("from the Hub",)
    assert (
        "advbench is the public set; for what is called advbench in this folder write ./advbench"
        in capsys.readouterr().err
    )
    assert load_prompts("advbench.txt").prompts == ("from the file",)
    with pytest.raises(UsageError, match="is a folder"):
        load_prompts("./advbench")


def test_another_column_can_be_asked_for_in_python(hub):
    hub["walledai/AdvBench"] = {"prompt": ["a"], "target": ["b"]}
    assert load_prompts("advbench", column="target").prompts == ("b",)
