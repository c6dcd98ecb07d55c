"""Help that names every option whole, in groups; names that nobody knows; usage errors under --json; completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from weight_edit import load_recipe
from weight_edit.cli.app import OVERRIDES as EXAMPLES
from weight_edit.cli.choices import CHOICES, edits, methods
from weight_edit.cli.entry import app
from weight_edit.cli.option_groups import GROUPS, OTHERS, group_of
from weight_edit.cli.option_words import ALIKE
from weight_edit.utils.names import unknown

VERBS = typer.main.get_command(app).commands


def options(verb: str) -> list[tuple[str, ...]]:
    """The names of each option of a verb."""
    found = [(*p.opts, *p.secondary_opts) for p in VERBS[verb].params if p.param_type_name == "option"]
    return [*found, ("-h", "--help")]


@pytest.mark.parametrize("verb", VERBS)
def test_help_at_80_columns_names_every_option_whole(call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page, short = call(verb, "--help"), call(verb, "-h")
    assert (page.code, short.code) == (0, 0)
    assert page.out == short.out
    shown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*(?=[\s,])", page.out))
    assert {name for names in options(verb) for name in names} <= shown
    assert max(len(line.rstrip()) for line in page.out.splitlines()) <= 80
    assert "…" not in page.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_group(verb: str) -> None:
    every = [name for names in options(verb) for name in names]
    alone = [names for names in options(verb) if group_of(names, every) == OTHERS]
    assert not alone, f"give them a place in weight_edit/cli/option_groups.py: {alone}"
    by_group = [group_of(names, every) for names in options(verb)]
    assert max(by_group.count(title) for title in GROUPS) <= 14


def test_the_help_of_run_names_keys_that_recipes_have(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = call("run", "--help").out
    for name in ("refusal-direction", "organism", "leace"):
        load_recipe(name, EXAMPLES)
    assert all(f"--set {example}: " in page for example in EXAMPLES)


def test_a_flag_does_not_look_as_if_it_took_a_value(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = call("find", "--help").out
    assert re.search(r"^  --best-effort  +[A-Z][a-z]", page, re.MULTILINE)
    assert "--filter auto|answers|first-token|none\n" in page
    assert "--card / --no-card" in call("evaluate", "--help").out
    assert "bool" not in page
    assert "--select bypass|accuracy|cosmic|cosmic-released\n" in page
    assert re.search(r"--min-induce X .*?\[default: 0.0\]", page, re.DOTALL)


def test_the_few_values_of_options_are_those_of_the_functions() -> None:
    from weight_edit.baking.tensors import ROUNDINGS
    from weight_edit.directions.find import _positions
    from weight_edit.directions.registry import finders
    from weight_edit.directions.selection import BY
    from weight_edit.edits.registry import edit_kinds
    from weight_edit.errors import UsageError
    from weight_edit.plan.mtp import MTP_MODES
    from weight_edit.plan.plan import EMBEDDING_MODES, PROJECTOR_MODES
    from weight_edit.runtime.dtypes import DTYPES

    assert CHOICES["dtype"] == DTYPES
    assert CHOICES["select"] == BY
    assert CHOICES["embeddings"] == EMBEDDING_MODES
    assert CHOICES["projector"] == PROJECTOR_MODES
    assert CHOICES["mtp"] == MTP_MODES
    assert CHOICES["rounding"] == ROUNDINGS
    for positions in CHOICES["positions"]:
        assert _positions(positions, 2)
    with pytest.raises(UsageError, match=r"'lasst'; did you mean 'last'\? \(there are template, last, all\)"):
        _positions("lasst", 2)
    assert list(methods()) == list(finders())
    assert list(edits()) == list(edit_kinds())


FIND = ("find", "organism", "--target", "organism:refused", "--baseline", "organism:answered")
BAKE = ("bake", "organism", "--directions", "d", "--out", "o")


@pytest.mark.parametrize(
    ("args", "nearest"),
    [
        ((*FIND, "--method", "mean-diff"), "'mean-difference'"),
        ((*FIND, "--option", "clp=0.9"), "'clip'"),
        ((*FIND, "--method", "rdo", "--option", "stps=9"), "'steps'"),
        ((*FIND, "--select", "acuracy"), "'accuracy'"),
        ((*FIND, "--positions", "templat"), "'template'"),
        ((*FIND[:3], "organism:refusd", *FIND[4:]), "'refused'"),
        ((*FIND[:3], "organism:refused:trian", *FIND[4:]), "'train'"),
        ((*FIND, "--protect", "atoms:mathematic"), "'mathematics'"),
        ((*FIND, "--dtype", "bfloat"), "'bfloat16'"),
        ((*BAKE, "--kind", "ablat"), "'ablate'"),
        ((*BAKE, "--kind", "affine", "--option", "towards=target"), "'toward'"),
        ((*BAKE, "--embeddings", "unite"), "'untie'"),
        ((*BAKE, "--rounding", "balance"), "'balanced'"),
        ((*BAKE, "--mtp", "skp"), "'skip'"),
        (("adapter", *BAKE[1:], "--kind", "reflct"), "'reflect'"),
        (("adapter", *BAKE[1:], "--projector", "part"), "'partial'"),
        (("evaluate", "organism", "--answered", "organism:answred"), "'answered'"),
        (("inspect", "--all", "--only", "lama"), "'llama'"),
        (("inspct",), "'inspect'"),
        ((*FIND, "--max-k", "1"), "did you mean --max-kl?"),
        # What other verbs call it.
        ((*FIND, "--limit", "9"), "did you mean --n-train or --n-validation?"),
        (("evaluate", "organism", "--n-train", "9"), "did you mean --limit?"),
        (("evaluate", "organism", "--prompts", "p"), "did you mean --refused or --answered?"),
        (("find", "organism", "--refused", "p"), "did you mean --target?"),
        (("diff", "a", "b", "--out", "d"), "did you mean --save?"),
        ((*BAKE, "--force"), "did you mean --overwrite?"),
        (("run", "organism", "--limit", "9"), "did you mean `--set verify.limit=...` or `--set evaluate.limit=...`?"),
        (("find", "--model", "organism"), "MODEL stands by itself"),
    ],
)
def test_an_unknown_name_is_exit_code_2_with_the_nearest(call, args: tuple[str, ...], nearest: str) -> None:
    result = call(*args)
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert nearest in result.err
    documented = call(*args, "--json")
    assert documented.code == 2
    assert nearest in documented.json["error"]
    assert documented.json["exit_code"] == 2


def test_names_are_looked_at_before_torch_is_imported(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: organism\nfind: {target: a, baseline: b, select: acuracy}\n", encoding="utf-8")
    code = (
        "import sys; from weight_edit import cli\n"
        "for args in (['find', 'organism', '--target', 'organism:refused', '--baseline', 'organism:answered',\n"
        "              '--method', 'mean-diff'], ['evaluate', 'organism', '--dtype', 'flot32'],\n"
        f"             ['run', {str(recipe)!r}]):\n"
        "    sys.argv = ['weight-edit', *args]\n"
        "    try: cli.main()\n"
        "    except SystemExit as stop: assert stop.code == 2\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_misspelt_model_is_the_embedded_one_or_a_folder_here(
    call, hub, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    result = call("inspect", "organsm")
    assert result.code == 2
    assert "did you mean 'organism'?" in result.err
    (tmp_path / "edited-model").mkdir()
    (tmp_path / "edited-model/config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'edited-model'?" in call("inspect", "edited-modle").err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("bake", "organism", "--directions", "d"), "missing option '--out'"),
        ((*BAKE, "--strength", "much"), "'--strength'"),
        ((*BAKE, "--no-such-option"), "--no-such-option"),
        (("verify", "organism"), "missing argument 'EDITED'"),
        (("find", "organism", "--n-train", "x"), "'--n-train'"),
    ],
)
def test_a_usage_error_is_in_the_document(call, args: tuple[str, ...], said: str) -> None:
    result = call(*args, "--json")
    assert result.code == 2
    assert said in result.json["error"]
    assert "--help" in result.json["error"]
    assert len(result.err.strip().splitlines()) == 1


def test_an_unknown_name_of_many_lists_the_nearest_alone_and_of_none_them_all() -> None:
    many = [f"name-{number}" for number in range(40)]
    assert str(unknown("thing", "name-3x", many)) == "there is no thing 'name-3x'; did you mean 'name-3'?"
    assert str(unknown("thing", "q", many * 2)).endswith("none of the 80 that there are is like it")
    assert str(unknown("thing", "q", ["a", "b"])) == "there is no thing 'q'; choose one of a, b"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("weight-edit in", "inspect"),
        ("weight-edit find organism --method mean", "mean-difference"),
        ("weight-edit bake organism --kind re", "reflect"),
        ("weight-edit find organism --target organism:ref", "organism:refused:test"),
        ("weight-edit bake organism --embeddings un", "untie"),
        ("weight-edit find organ", "organism-thinking"),
    ],
)
def test_the_shell_completes_names(words: str, wanted: str) -> None:
    environment = {
        **os.environ,
        "_WEIGHT_EDIT_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": words,
    }
    code = "import sys; sys.argv = ['weight-edit']; from weight_edit.cli.entry import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert wanted in done.stdout.split(), (done.stdout, done.stderr)


def test_completion_can_be_installed(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = call("--help").out
    assert call("-h").out == page
    assert "--install-completion" in page
    assert "--show-completion" in page
    assert max(len(line.rstrip()) for line in page.splitlines()) <= 80


def test_the_help_of_the_command_lists_the_verbs_in_the_order_of_a_first_day(call) -> None:
    listed = re.search(r"^Verbs\n(.*?)\n\n", call("--help").out, re.MULTILINE | re.DOTALL)
    assert listed is not None
    verbs = re.findall(r"^  ([a-z]+) ", listed.group(1), re.MULTILINE)
    assert verbs == list(VERBS)
    assert verbs == [
        "demo",
        "run",
        "inspect",
        "plan",
        "find",
        "take",
        "search",
        "bake",
        "verify",
        "evaluate",
        "judge",
        "report",
        "chat",
        "diff",
        "adapter",
        "pack",
        "apply",
        "undo",
        "push",
        "ui",
    ]


def test_no_arguments_show_the_help(call) -> None:
    result = call()
    assert result.code == 2
    assert "Start with" in result.out


def test_options_that_are_said_to_say_the_same_are_options_of_verbs() -> None:
    known = {name for verb in VERBS for names in options(verb) for name in names}
    assert all(len(known & set(row)) > 0 for row in ALIKE)
    # What is suggested must be there; the words of other tools and of earlier versions suggest, and are not suggested.
    assert {name for row in ALIKE for name in row} - known == {"--n-prompts", "--output", "-o", "--force", "-f"}
