"""The documents: Python blocks run, commands and options exist, and lists of things list all of them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from weight_edit import load_recipe
from weight_edit.cli.entry import app
from weight_edit.organism.embedded import folder
from weight_edit.verification.tolerances import IN_FLOAT32, IN_STORAGE, STRICT
from weight_edit.verification.verify import STRICT_LEFT
from weight_edit.version import __version__

ROOT = Path(__file__).parent.parent
PAGES = ("recipes/README.md", "docs/architectures.md")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *PAGES)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = ("refused", "right")
SECOND_USE = "## Your own prompts, your own model"


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block, in order."""
    return BLOCK.findall(text)


def commands(text: str) -> list[list[str]]:
    """Arguments of every `weight-edit` call in shell blocks and in code spans."""
    lines = [line for language, block in blocks(text) if language == "sh" for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("weight-edit ")]
    return [arguments[1:] for arguments in split]


def verbs() -> dict[str, set[str]]:
    """Every verb of the command line with its options."""
    group = typer.main.get_command(app)
    return {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in group.commands.items()
    }


def run(arguments: list[str], cwd: Path) -> str:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_option_named_exists(document: str) -> None:
    known = verbs() | {"VERB": set()}
    for arguments in commands(text_of(document)):
        verb, *rest = arguments
        assert verb in known, f"weight-edit {verb}"
        options = {argument.partition("=")[0] for argument in rest if re.match(r"--?[a-z]", argument)}
        assert options <= known[verb] | {"--help"}, f"weight-edit {verb}: {options - known[verb]}"


def test_the_table_of_verbs_lists_all_of_them() -> None:
    named = {arguments[0] for arguments in commands(text_of("README.md"))}
    assert set(verbs()) <= named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_named_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    text = text_of(document)
    code = [block for _, block in blocks(text)] + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    for line in (line for part in code for line in part.splitlines()):
        if line.startswith("make "):
            assert set(line.partition("#")[0].split()[1:]) <= targets, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_that_exist(document: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", text_of(document)):
        if not link.startswith("https://"):
            assert ((ROOT / document).parent / link).exists(), link


def test_modules_that_the_house_names_exist() -> None:
    house = text_of("CONTRIBUTING.md").partition("## The house")[2].partition("\n## ")[0]
    for name in re.findall(r"`(\w+(?:\.py|/))`", house):
        assert (ROOT / "weight_edit" / name).exists(), name


def test_every_recipe_is_listed_and_valid() -> None:
    listed = text_of("recipes/README.md")
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"]({recipe.name})" in listed
        if recipe.stem != "hub":
            load_recipe(recipe)


def test_versions_agree() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f"## [{__version__}] - {citation['date-released']}" in text_of("CHANGELOG.md")


def test_the_bounds_of_verification_are_those_in_force() -> None:
    text = " ".join(text_of("README.md").split())
    assert f"leave {STRICT_LEFT:.0e} of `V^T W` and of the stream" in text
    assert STRICT.leak == STRICT_LEFT
    assert f"by {STRICT.logits:.0e} of the largest logit and a KL divergence of {STRICT.kl:.0e} nats" in text
    assert f"| float32 | {IN_FLOAT32:g} x the leak" in text
    assert f"| {IN_FLOAT32:g} x what the base under hooks shows" in text
    assert f"| the storage dtype | {IN_STORAGE:g} x the same | {IN_STORAGE:g} x that" in text


def test_figures_of_the_embedded_model_are_those_of_its_record() -> None:
    record = json.loads((folder() / "organism.json").read_text(encoding="utf-8"))
    measured = (record["stage_one"], record["before"]["test"], record["after"]["test"])
    _, _, table = text_of("README.md").partition("<!-- organism-figures -->")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(measured)
    for row, found in zip(rows, measured, strict=True):
        shown = [cell.strip() for cell in row.split("|")[2:-1]]
        assert shown == [f"{found[name][kind]['value']:.3f}" for name in ("refused", "answered") for kind in KINDS]


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    before, _, _ = text_of("README.md").partition(SECOND_USE)
    examples = [block for language, block in blocks(before) if language == "python"]
    assert examples
    for example in examples:
        assert run(["-c", example], tmp_path).startswith("True")


@pytest.mark.slow
def test_the_second_use_runs_from_prompt_files_to_a_chat(tmp_path: Path) -> None:
    """Blocks in their order, as a reader would copy them, in one folder; the last one prints an answer."""
    _, _, rest = text_of("README.md").partition(SECOND_USE)
    section = rest.partition("\n## ")[0]
    printed = ""
    for language, block in blocks(section):
        if language == "python":
            printed = run(["-c", block], tmp_path)
        for arguments in commands(f"```{language}\n{block}```"):
            run(["-m", "weight_edit", *arguments], tmp_path)
    assert (tmp_path / "edited-model" / "weight_edit.json").is_file()
    assert len(printed.split()) > 3
