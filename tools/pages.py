"""Write the parts of documents that the package itself knows: methods, edits, studies, prompt sets, names, keys.

    python tools/pages.py

In docs/command-line.md, docs/methods.md, docs/python.md and docs/recipes.md, what stands between
`<!-- NAME: made by tools/pages.py -->` and `<!-- end -->` is made from the registries, from docstrings and from data
files; all else is written by hand and stays. tests/test_documents.py holds the pages to it.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import weight_edit
from weight_edit.directions.registry import finders
from weight_edit.edits.registry import edit_kinds
from weight_edit.prompts.public_sets import public_sets
from weight_edit.recipe.recipe import Recipe
from weight_edit.studies.registry import studies
from weight_edit.utils.registry import Named
from weight_edit.utils.settings import Section

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- ([a-z ]+): made by tools/pages\.py -->\n).*?(<!-- end -->)", re.DOTALL)
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")
REPOSITORY = re.compile(r"\((\w[\w-]*/[\w-]+)\)")
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):$", re.MULTILINE)


def sources(named: Named[Any]) -> list[str]:
    """Where a method is from: the `paper` that it is registered with, then what its docstrings name, as links."""
    described = (inspect.getmodule(named.function), named.function, named.options)
    text = "\n".join(inspect.getdoc(one) or "" for one in described)
    given = getattr(named, "papers", None) or ()
    papers = [*PAPER.findall(" ".join([given] if isinstance(given, str) else given)), *PAPER.findall(text)]
    links = [f"[{paper}](https://arxiv.org/abs/{paper})" for paper in papers]
    links += [f"[{name}](https://github.com/{name})" for name in REPOSITORY.findall(text)]
    return list(dict.fromkeys(links))


def body(docstring: str) -> str:
    """A docstring without its first line, its lists of arguments and errors."""
    return SECTION.split(docstring)[0].partition("\n")[2].strip()


def settings(named: Named[Any]) -> list[str]:
    """A line for each setting: its name, its default as one would write it, and what its class says of it."""
    said = attributes(inspect.getdoc(named.options) or "")
    lines = []
    for name, field in named.options.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if field.is_required() else f" = `{default if isinstance(default, str) else plain(default)}`"
        lines.append(f"- `{name}`{shown}{f': {said[name]}' if name in said else ''}")
    return lines


def plain(value: Any) -> str:
    """A default as JSON."""
    return json.dumps(value, default=lambda one: one.model_dump(exclude_defaults=True))


def attributes(docstring: str) -> dict[str, str]:
    """What a docstring says under `Attributes:`, by name; several names may share a line."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        if match := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif names and line.startswith(" " * 8):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def summary(named: Named[Any]) -> str:
    """The first line of its docstring, without the number of the paper, which has a column of its own."""
    return re.sub(r",? ?\(?arXiv \d{4}\.\d{5}\)?|\s*\(\w[\w-]*/[\w-]+\)", rest_of_reference, named.summary)


def rest_of_reference(match: re.Match[str]) -> str:
    """What is left of a reference within brackets: their end, where it had only the end of them."""
    return ")" if match[0].endswith(")") and "(" not in match[0] else ""


def listing(known: Mapping[str, Named[Any]], folder: str) -> str:
    """A table of all, then each with its formula and its settings."""
    rows = ["| name | what it is | from | file |", "|---|---|---|---|"]
    details = []
    for name, named in known.items():
        file = Path(inspect.getfile(named.function)).name
        link = f"[{file}](../weight_edit/{folder}/{file})"
        rows.append(f"| `{name}` | {cell(summary(named))} | {', '.join(sources(named))} | {link} |")
        described = body(inspect.getdoc(named.function) or "")
        parts = (f"**`{name}`**. {summary(named)}", described, "\n".join(settings(named)))
        details.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(["\n".join(rows), *details])


def cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|")


def names() -> str:
    """Every public name with the first line of its docstring."""
    rows = ["| name | what it is |", "|---|---|"]
    for name in sorted(weight_edit.__all__, key=str.lower):
        what = getattr(weight_edit, name)
        said = (inspect.getdoc(what) or "").splitlines()[0] if callable(what) else "The version of the package."
        rows.append(f"| `{name}` | {cell(said)} |")
    return "\n".join(rows)


def prompt_sets() -> str:
    """Every public prompt set with its parts, where it is on the Hub, and its terms."""
    rows = ["| name | parts (prompts) | what it is | data set | licence |", "|---|---|---|---|---|"]
    for name, found in public_sets().items():
        paper = f" ([{found.paper}](https://arxiv.org/abs/{found.paper}))" if found.paper else ""
        parts = ", ".join(f"`{part}`{f' ({one.size})' if one.size else ''}" for part, one in found.parts.items())
        link = f"[{found.id}](https://huggingface.co/datasets/{found.id})"
        rows.append(f"| `{name}` | {parts} | {found.title}{paper} | {link} | {found.terms} |")
    return "\n".join(rows)


def recipe_keys() -> str:
    """A table of the keys of a recipe, with those of its sections behind them, as overrides have them."""
    rows = ["| key | takes | default |", "|---|---|---|"]
    for key, field in keys_of(Recipe):
        default = "" if field.is_required() or section_in(field.annotation) else f"`{default_of(field)}`"
        rows.append(f"| `{key}` | {cell(taken(field))} | {default} |")
    return "\n".join(rows)


def keys_of(section: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its field; in place of a section, its own keys."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            yield f"{before}{name}", field
        else:
            # Entries of lists by number.
            entry = ".0" if get_origin(field.annotation) is list else ""
            # Its keys are those of the section around it.
            alike = issubclass(section, inner)
            yield from [(f"{before}{name}{entry}", field)] if alike else keys_of(inner, f"{before}{name}{entry}.")


def section_in(annotation: object) -> type[BaseModel] | None:
    """The section that an annotation is, alone or in a list or mapping of such."""
    inner = [annotation, *(part for part in get_args(annotation) if part is not type(None))]
    found = [each for each in inner if isinstance(each, type) and issubclass(each, Section)]
    # A name of a judge is as good as its section.
    return found[0] if found and len(get_args(annotation)) < 3 and str not in inner[:2] else None


def default_of(field: FieldInfo) -> str:
    """A default as an override has it."""
    default = field.get_default(call_default_factory=True)
    return default if isinstance(default, str) and default else plain(default)


def taken(field: FieldInfo) -> str:
    """In words, what values a field takes."""
    if section_in(field.annotation) is not None:
        return "such a section"
    return " or ".join(dict.fromkeys(words_of(field.annotation)))


def words_of(annotation: object) -> Iterator[str]:
    """The kinds of values of an annotation."""
    known = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    origin = get_origin(annotation)
    if origin is Literal:
        yield from (f"`{each}`" for each in get_args(annotation))
    elif origin in (list, tuple):
        yield "a list"
    elif origin is Annotated:
        yield from words_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from words_of(each)
    else:
        yield known.get(annotation, "keys and values")  # type: ignore[call-overload]


PARTS: Mapping[str, Callable[[], str]] = {
    "finders": lambda: listing(finders(), "directions/finders"),
    "edits": lambda: listing(edit_kinds(), "edits/kinds"),
    "studies": lambda: listing(studies(), "studies/kinds"),
    "public names": names,
    "public sets": prompt_sets,
    "keys of a recipe": recipe_keys,
}
PAGES: Iterable[str] = ("docs/command-line.md", "docs/methods.md", "docs/python.md", "docs/recipes.md")


def made(text: str) -> str:
    """A page with its parts made anew.

    Raises:
        KeyError: a part that nothing makes.
    """
    return PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")
