"""Hand-written YAML, parsed in bounded time and memory.

An alias stands for all that its anchor holds, so that a few lines can spell billions of entries. They are counted as
what they spell, before anything is made of them.
"""

import re
from typing import Any

import yaml

from weight_edit.utils.json import MAX_DEPTH, MAX_DIGITS, JsonError, check_value

MAX_TEXT = 200_000
"""The longest text in characters."""

MAX_NODES = 20_000
"""The most keys, values, lists and mappings, aliases expanded."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class YamlError(ValueError):
    """Raised for a text that is not acceptable YAML; the message is one line."""


class _Loader(yaml.SafeLoader):
    """A safe loader for JSON's kinds of values, which counts nodes while it composes them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        before = self._count
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlError("nested too deeply")
        self._count += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise YamlError("an alias stands within what it stands for")
            self._count += self._sizes[id(node)]
        if self._count > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES} entries, those that aliases stand for included")
        if not alias:
            self._sizes[id(node)] = self._count - before
        return node


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        raise YamlError(f"a number of {len(node.value)} digits is too long")
    return int(yaml.SafeLoader.construct_yaml_int(loader, node))


def _refused(loader: _Loader, node: yaml.Node) -> Any:
    raise YamlError(f"the tag {node.tag[:60]!r} is of no use here; write texts, numbers, lists and mappings")


_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag and tag.rpartition(":")[2] in _KINDS
}
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor(None, _refused)
# A date without quotes is a text here, as everything is that is no number.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] != "timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: null, booleans, numbers, texts, lists and mappings.

    Raises:
        YamlError: no YAML, or more than `MAX_TEXT` characters or `MAX_NODES` entries, other kinds of values, control
            characters in a text.
    """
    if len(text) > MAX_TEXT:
        raise YamlError(f"{len(text)} characters are too many; at most {MAX_TEXT} are read")
    try:
        loader = _Loader(text)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
        check_value(found)
    except JsonError as error:
        raise YamlError(str(error)) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(" ".join(str(error).split())) from None
    _check_texts(found)
    return found


def _check_texts(value: Any) -> None:
    if isinstance(value, str) and (found := _CONTROL.search(value)):
        raise YamlError(f"a text holds the control character {found[0]!r}")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for entry in value if isinstance(value, list) else ():
        _check_texts(entry)
