"""What is registered in a folder of this package, read from its source: help texts list it without importing it."""

import ast
from pathlib import Path


def registered(folder: str, decorator: str) -> dict[str, str]:
    """Names and the first lines of docstrings of the functions under `@decorator("name")`.

    Args:
        folder: below the package, such as "edits/kinds".
    """
    found = {}
    for file in sorted((Path(__file__).parent / folder).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if not isinstance(call, ast.Call) or not call.args or not isinstance(node, ast.FunctionDef):
                    continue
                name = call.args[0]
                if isinstance(call.func, ast.Name) and call.func.id == decorator and isinstance(name, ast.Constant):
                    found[str(name.value)] = (ast.get_docstring(node) or str(name.value)).splitlines()[0]
    return dict(sorted(found.items()))


def as_help(what: str, names: dict[str, str]) -> str:
    """A list for the end of a verb's help, in Markdown."""
    return "\n\n".join([f"{what}:", *(f"- **{name}**: {summary}" for name, summary in names.items())])
