"""The documents: Python blocks run, commands and options exist, and lists of things list all of them."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml
from packaging.version import Version
from pages import PAGES, PART, PARTS, made, sources
from site_pages import REPOSITORY

import weight_edit
from tests.helpers.floors import FLOORS
from weight_edit import load_recipe
from weight_edit.cli.entry import app
from weight_edit.directions.registry import finders
from weight_edit.edits.registry import edit_kinds
from weight_edit.organism.embedded import folder
from weight_edit.studies.registry import studies
from weight_edit.verification.tolerances import IN_FLOAT32, IN_STORAGE, STRICT
from weight_edit.verification.verify import STRICT_LEFT
from weight_edit.version import __version__

ROOT = Path(__file__).parent.parent
DOCS = tuple(sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "recipes/README.md",
    *DOCS,
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
KINDS = ("refused", "right")
SECOND_USE = "## 3. Your own prompts"
WITHOUT_LINKS = ("SECURITY.md", "docs/architectures.md", "docs/difference.md", "docs/python.md")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block, in order."""
    return BLOCK.findall(text)


def commands(text: str) -> list[list[str]]:
    """Arguments of every `weight-edit` call in shell blocks and in code spans."""
    lines = [line for language, block in blocks(text) if language == "sh" for line in block.splitlines()]
    lines += SPAN.findall(BLOCK.sub("", text))
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


def test_every_command_and_option_named_exists() -> None:
    known = verbs() | {"VERB": set()}
    named = {document: commands(text_of(document)) for document in DOCUMENTS}
    assert all(named[document] for document in ("README.md", "recipes/README.md", "docs/quickstart.md"))
    for document, calls in named.items():
        for verb, *rest in calls:
            assert verb in known, f"{document}: weight-edit {verb}"
            options = {argument.partition("=")[0] for argument in rest if re.match(r"--?[a-z]", argument)}
            assert options <= known[verb] | {"--help"}, f"{document}: weight-edit {verb}: {options - known[verb]}"


@pytest.mark.parametrize("document", ["README.md", "docs/command-line.md"])
def test_the_tables_of_verbs_list_all_of_them(document: str) -> None:
    rows = re.findall(r"^\| `weight-edit (\w+)", text_of(document), re.MULTILINE)
    assert set(rows) == set(verbs())


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = []
    for document in DOCUMENTS:
        text = text_of(document)
        code = [block for _, block in blocks(text)] + SPAN.findall(BLOCK.sub("", text))
        named += [line for part in code for line in part.splitlines() if line.startswith("make ")]
    assert len(named) > 10
    for line in named:
        words = line.partition("#")[0].split()[1:]
        assert {word for word in words if "=" not in word} <= targets, line


def anchors(document: Path) -> set[str]:
    """What a link may point to inside a page: its headings, as the hosts of repositories and the site write them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_exist(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text_of(document)))
    assert links or document in WITHOUT_LINKS
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_files_that_are_named_exist() -> None:
    """Paths as the documents write them: from the repository, from the package, or in CONTRIBUTING from the anatomy."""
    named = [
        (document, name)
        for document in DOCUMENTS
        if document != "CHANGELOG.md"
        for name in re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|txt|json))`", BLOCK.sub("", text_of(document)))
    ]
    assert len(named) > 50
    bases = (ROOT, ROOT / "weight_edit", ROOT / "weight_edit/anatomy")
    missing = [f"{document}: {name}" for document, name in named if not any((base / name).exists() for base in bases)]
    assert not missing, missing


def test_architecture_names_every_room_with_its_floor() -> None:
    floors = [block.split("\n") for _, block in blocks(text_of("ARCHITECTURE.md")) if "redaction version" in block]
    assert len(floors) == 1
    assert [set(line.split()) for line in floors[0] if line] == [set(line.split()) for line in reversed(FLOORS)]
    (bands,) = [block for _, block in blocks(text_of("ARCHITECTURE.md")) if block.startswith("VERBS")]
    rooms = re.findall(r"^(?:[A-Z]+|) +([a-z_]+) {2,}\S", bands, re.MULTILINE)
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == set(" ".join(FLOORS).split()) - {"__init__", "__main__"}
    assert len(re.findall(r"^[A-Z]+ ", bands, re.MULTILINE)) == 5


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES)
def test_parts_made_from_the_package_are_up_to_date(page: str) -> None:
    """Otherwise run `python tools/pages.py`."""
    text = text_of(page)
    assert PART.search(text)
    assert made(text) == text


def test_every_method_edit_and_study_has_its_source_and_settings() -> None:
    text = text_of("docs/methods.md")
    assert {name for page in PAGES for _, name, _ in PART.findall(text_of(page))} == set(PARTS)
    known = {**finders(), **edit_kinds(), **studies()}
    assert len(known) > 20
    for name, one in known.items():
        assert f"| `{name}` |" in text
        for setting in one.options.model_fields:
            assert re.search(rf"^- `{setting}`.*: \S", text, re.MULTILINE), f"{name}: {setting}"
    without = {name for name, one in known.items() if not sources(one)}
    assert without == {"random", "rectify", "compare", "sweep"}


def test_the_python_page_has_every_public_name() -> None:
    named = re.findall(r"^::: weight_edit\.(\w+)$", text_of("docs/python.md"), re.MULTILINE)
    assert sorted(named) == sorted({*weight_edit.__all__} - {"__version__"})


def test_the_site_has_every_page() -> None:
    nav = yaml.safe_load(text_of("mkdocs.yml"))["nav"]
    pages = [page for entry in nav for page in entry.values()]
    assert sorted(f"docs/{page}" for page in pages if f"docs/{page}" in DOCS) == sorted(DOCS)
    assert {page for page in pages if f"docs/{page}" not in DOCS} == set(REPOSITORY.values()) - {"SECURITY.md"}


def test_extras_that_the_documents_name_are_declared() -> None:
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    named = [name for document in DOCUMENTS for name in re.findall(r"'\.\[([a-z,]+)\]'", text_of(document))]
    assert named
    assert {name for names in named for name in names.split(",")} <= set(extras)


def test_every_recipe_is_listed_and_valid() -> None:
    listed = text_of("recipes/README.md")
    recipes = list((ROOT / "recipes").glob("*.yaml"))
    assert len(recipes) > 20
    for recipe in recipes:
        assert f"]({recipe.name})" in listed
        if recipe.stem != "hub":
            load_recipe(recipe)


def test_the_recipe_on_the_page_of_recipes_is_valid(tmp_path: Path) -> None:
    (content,) = (block for language, block in blocks(text_of("docs/recipes.md")) if language == "yaml")
    (tmp_path / "recipe.yaml").write_text(content, encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").edit.kind == "ablate"


def test_versions_agree() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    here, released = Version(__version__), Version(citation["version"])
    assert here == released or (here > released and here.is_devrelease), "what is cited is a release"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f"## [{released}] - {citation['date-released']}" in text_of("CHANGELOG.md")


def test_the_bounds_of_verification_are_those_in_force() -> None:
    text = " ".join(text_of("docs/exactness.md").split())
    assert f"leave {STRICT_LEFT:.0e} of `V^T W` and of the stream" in text
    assert STRICT.leak == STRICT_LEFT
    assert f"by {STRICT.logits:.0e} of the largest logit and a KL divergence of {STRICT.kl:.0e} nats" in text
    assert f"| float32 | {IN_FLOAT32:g} x the leak" in text
    assert f"| {IN_FLOAT32:g} x what the base under hooks shows" in text
    assert f"| the storage dtype | {IN_STORAGE:g} x the same | {IN_STORAGE:g} x that" in text


def test_figures_of_the_embedded_model_are_those_of_its_record() -> None:
    record = json.loads((folder() / "organism.json").read_text(encoding="utf-8"))
    measured = (record["stage_one"], record["before"]["test"], record["after"]["test"])
    _, _, table = text_of("docs/embedded-model.md").partition("<!-- organism-figures -->")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(measured)
    for row, found in zip(rows, measured, strict=True):
        shown = [cell.strip() for cell in row.split("|")[2:-1]]
        assert shown == [f"{found[name][kind]['value']:.3f}" for name in ("refused", "answered") for kind in KINDS]


def python_blocks(document: str) -> list[str]:
    return [block for language, block in blocks(text_of(document)) if language == "python"]


def test_every_block_of_python_is_one_that_is_run() -> None:
    assert {document for document in DOCUMENTS if python_blocks(document)} == {
        "README.md",
        "docs/python.md",
        "docs/quickstart.md",
    }
    assert python_blocks("README.md") == python_blocks("docs/python.md")[:1]
    languages = {language for document in DOCUMENTS for language, _ in blocks(text_of(document))}
    # `py` and `yaml` are run by test_newcomer.py, and above.
    assert languages == {"sh", "text", "python", "py", "yaml"}


@pytest.mark.slow
def test_the_python_examples_run_one_after_the_other(tmp_path: Path) -> None:
    """As a reader does who goes through the page in one session, in one folder."""
    examples = python_blocks("docs/python.md")
    assert len(examples) == 3
    assert len(re.findall("^True ", run(["-c", "\n".join(examples)], tmp_path), re.MULTILINE)) == 3


@pytest.mark.slow
def test_the_second_use_runs_from_prompt_files_to_a_chat(tmp_path: Path) -> None:
    """Blocks in their order, as a reader would copy them, in one folder; the last one prints an answer."""
    _, found, section = text_of("docs/quickstart.md").partition(SECOND_USE)
    assert found
    printed = ""
    called = []
    for language, block in blocks(section):
        if language == "python":
            printed = run(["-c", block], tmp_path)
        for arguments in commands(f"```{language}\n{block}```"):
            run(["-m", "weight_edit", *arguments], tmp_path)
            called.append(arguments[0])
    assert called == ["inspect", "find", "bake", "verify", "evaluate"]
    assert (tmp_path / "edited-model" / "weight_edit.json").is_file()
    assert len(printed.split()) > 3
