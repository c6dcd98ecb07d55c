"""Data files of judges: how another model is asked, and how its answer is read."""

import re
from collections.abc import Mapping
from pathlib import Path

from weight_edit.checkpoint.files import printable, read_whole
from weight_edit.errors import UsageError
from weight_edit.utils.bounded_yaml import parse_yaml
from weight_edit.utils.names import unknown
from weight_edit.utils.settings import Settings, validated

_ENDINGS = (".yaml", ".yml")


def names_in(folder: str) -> list[str]:
    """The names of the data files that come with the package, sorted."""
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.yaml"))


def read_data(folder: str, name: str, kind: type[Settings], what: str) -> Settings:
    """The content of a data file.

    Args:
        folder: where those of the package are, beside this file.
        name: of one of them, or the path of a YAML file.
        what: what one of them is called, for messages.

    Raises:
        UsageError: no such file, no YAML, or a wrong key or value.
    """
    if name.endswith(_ENDINGS):
        path, where = Path(name).expanduser(), f"{what} {printable(name)}"
    elif name in names_in(folder):
        path, where = Path(__file__).parent / folder / f"{name}.yaml", f"{what} {name}"
    else:
        raise UsageError(f"{unknown(what, name, names_in(folder))}, or give the path of a .yaml file")
    try:
        content = parse_yaml(bytes(read_whole(path)).decode("utf-8"))
    except ValueError as error:
        raise UsageError(f"{where}: no YAML ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where}: must be keys and values")
    return validated(kind, content, where)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with `{name}` replaced by parts, in one pass: what is put in is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), template)
