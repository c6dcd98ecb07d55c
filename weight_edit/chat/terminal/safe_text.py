"""A model's text made fit for a terminal: nothing in it is obeyed, and nothing in it is hidden."""

import unicodedata

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_BREAKS = "\n\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"
_TAB = "    "


def safe_text(text: str) -> str:
    """The text in which control characters, and those that turn the direction of writing, are escaped.

    Line breaks stay, tabs and wide spaces become spaces, and joiners stay, because scripts and emoji need them.
    """
    if text.isprintable():
        return text
    return "".join(map(_safe, text))


def _safe(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character in _BREAKS:
        return "\n"
    if character == "\t":
        return _TAB
    if character == "\r":
        return ""
    if unicodedata.category(character) == "Zs":
        return "  " if unicodedata.east_asian_width(character) == "F" else " "
    return repr(character)[1:-1]
