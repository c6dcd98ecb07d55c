"""Registered functions, read from their source without imports, for help texts."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weight_edit.utils.papers import arxiv_ids

# What the decorators are told beside the name that help shows.
_TOLD = ("paper", "aliases")


@dataclass(frozen=True)
class Registered:
    """A registered function's summary, settings and papers.

    Attributes:
        summary: the first line of its docstring.
        settings: what `--option` takes, with the defaults as one would write them there.
        papers: arXiv ids of the papers that it follows.
        aliases: other names that it answers to.
    """

    summary: str
    settings: dict[str, str]
    papers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def registered(folder: str, decorator: str) -> dict[str, Registered]:
    """The functions under `@decorator("name")` in a folder, by name.

    Args:
        folder: below the package, such as "edits/kinds".
    """
    found = {}
    for file in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        for node in body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if not isinstance(call, ast.Call) or not call.args or not isinstance(node, ast.FunctionDef):
                    continue
                name = call.args[0]
                if isinstance(call.func, ast.Name) and call.func.id == decorator and isinstance(name, ast.Constant):
                    summary = (ast.get_docstring(node) or str(name.value)).splitlines()[0]
                    told = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg in _TOLD}
                    papers, aliases = arxiv_ids(told.get("paper")), tuple(told.get("aliases", ()))
                    found[str(name.value)] = Registered(summary, _settings(node, classes), papers, aliases)
    return dict(sorted(found.items()))


def canonical(name: str, known: Mapping[str, Registered]) -> str:
    """The name that an alias stands for; any other name unchanged."""
    return next((own for own, one in known.items() if name in one.aliases), name)


def _settings(function: ast.FunctionDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """The fields of the class that annotates the parameter `options`, in the same file."""
    annotations = [argument.annotation for argument in function.args.args if argument.arg == "options"]
    names = [annotation.id for annotation in annotations if isinstance(annotation, ast.Name)]
    fields = [field for name in names if name in classes for field in classes[name].body]
    return {
        field.target.id: _written(field.value)
        for field in fields
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None
    }


def _written(default: ast.expr) -> str:
    """A default as YAML: null instead of None."""
    if not isinstance(default, ast.Constant):
        return ast.unparse(default)
    return default.value if isinstance(default.value, str) else json.dumps(default.value)


def as_help(what: str, names: dict[str, Registered]) -> str:
    """The Markdown list of names for the end of a verb's help."""
    return "\n\n".join([f"{what}:", *(f"- **{name}**{_apposition(one)}: {_told(one)}" for name, one in names.items())])


def _apposition(one: Registered) -> str:
    """The parenthesis after a name with aliases and papers; empty if there are none."""
    papers = [f"arXiv {', '.join(one.papers)}"] if one.papers else []
    told = "; ".join([*(f"or {alias}" for alias in one.aliases), *papers])
    return f" ({told})" if told else ""


def _told(one: Registered) -> str:
    if not one.settings:
        return one.summary
    # Outside of code spans Markdown takes underscores for emphasis.
    settings = ", ".join(f"`{name}={default}`" for name, default in one.settings.items())
    return f"{one.summary} Options: {settings}."
