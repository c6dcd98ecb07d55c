"""Write the parts of the documents that the package itself knows: methods, edits, studies, prompt sets, names.

    python tools/pages.py

In docs/command-line.md, docs/methods.md and docs/python.md, what stands between `<!-- NAME: made by tools/pages.py -->`
and `<!-- end -->` is made from the registries, from docstrings and from data files; all else is written by hand and
stays. tests/test_documents.py holds the pages to it.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import weight_edit
from weight_edit.directions.registry import finders
from weight_edit.edits.registry import edit_kinds
from weight_edit.prompts.public_sets import public_sets
from weight_edit.studies.registry import studies
from weight_edit.utils.registry import Named

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


PARTS: Mapping[str, Callable[[], str]] = {
    "finders": lambda: listing(finders(), "directions/finders"),
    "edits": lambda: listing(edit_kinds(), "edits/kinds"),
    "studies": lambda: listing(studies(), "studies/kinds"),
    "public names": names,
    "public sets": prompt_sets,
}
PAGES: Iterable[str] = ("docs/command-line.md", "docs/methods.md", "docs/python.md")


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
