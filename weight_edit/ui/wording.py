"""Messages of commands and of the engine in the words of the page: its labels, and no flags without a field."""

import re
from collections.abc import Mapping
from html import unescape

from weight_edit.errors import WeightEditError
from weight_edit.ui.markup import text

# As a command has it, and as Python has it, between backticks.
_FLAG = re.compile(r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z-]*[a-z])(?![\w-])")
_SETTING = re.compile(r"`(?P<name>\w+)(?:(?P<sign>=|: )(?P<value>[^`]*))?`")

# How settings that there is no field for stand in a message until it is known what becomes of them.
_OPEN, _CLOSE = "\x02", "\x03"
_LACKING = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_ASIDE = re.compile(rf" ?\([^()]*{_OPEN}[^()]*\)")
_OR = re.compile(r",? or (?=\S)")


class Wording:
    """How the page says what was written for a terminal, or for Python.

    Args:
        labels: of fields, by the names that settings have, with underscores; looked at anew for each message.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels

    def message(self, said: object) -> str:
        """A message, or an error's, with labels in place of settings; ways out that need others are left out."""
        written = flagged(said) if isinstance(said, WeightEditError) else str(said)

        def flag(found: re.Match[str]) -> str:
            label = self._labels.get(found["name"].replace("-", "_"))
            if label is None:
                return f"{_OPEN}{found[0]}{_CLOSE}"
            return f"“{label}”{' off' if found['no'] else ''}"

        def setting(found: re.Match[str]) -> str:
            name, value = found["name"], found["value"] or ""
            label = self._labels.get(name)
            return found[0] if label is None else f"“{label}”{_shown(value)}"

        marked = _SETTING.sub(setting, _FLAG.sub(flag, written))
        return marked if _OPEN not in marked else _without_lacking(marked)

    def html(self, html: str) -> str:
        """HTML with the texts between its tags as `message` has them."""
        return re.sub(r"(?<=>)[^<]+(?=<)", self._node, html)

    def _node(self, found: re.Match[str]) -> str:
        said = unescape(found[0])
        worded = self.message(said)
        return found[0] if worded == said else text(worded)


def flagged(error: WeightEditError) -> str:
    """An error's message with the settings that it names between backticks as a command has them."""

    def flag(found: re.Match[str]) -> str:
        written = f"--{found['name'].replace('_', '-')}{_shown(found['value'] or '')}"
        return written if found["name"] in error.options else found[0]

    return _SETTING.sub(flag, str(error))


def _shown(value: str) -> str:
    """A setting's value as it stands behind its name."""
    shown = {"True": "", "False": "off"}.get(value, value.strip("'\""))
    return f" {shown}" if shown else ""


def _without_lacking(marked: str) -> str:
    """A message without what it says to do with settings that there is no field for.

    That stands in brackets, or behind a semicolon, often as one of several ways. Where it is the message itself, the
    setting is said to be the command line's.
    """
    first, *ways = _ASIDE.sub("", marked).split("; ")
    kept = [first]
    for way in ways:
        parts = [part for part in _OR.split(way) if _OPEN not in part]
        if parts:
            kept.append(", or ".join(parts) if _OPEN in way else way)
    joined = "; ".join(each if place == 0 else each.removeprefix("or ") for place, each in enumerate(kept))
    return _LACKING.sub(r"the command line's \1", joined)
