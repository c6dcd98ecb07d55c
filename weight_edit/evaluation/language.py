"""The language of a text, told from its letters and its most frequent words."""

import re
from collections import Counter

from weight_edit.evaluation.phrase_list import folded, other_words, phrase_lists
from weight_edit.evaluation.plain_text import plain

NO_PHRASES = "no phrases for the language"
"""How the reason begins of an answer that is not judged for its language."""

SCRIPTS = {
    "Latin": ("en", "es", "de", "fr", "pt"),
    "Cyrillic": ("ru",),
    "Han": ("zh",),
    "kana": ("ja",),
    "Arabic": ("ar",),
    "Devanagari": ("hi",),
}
"""The languages with a list of phrases, by the script that they are written in."""

_RANGES = (
    ("Latin", "A", "\u024f"),
    ("Latin", "\u1e00", "\u1eff"),
    ("Greek", "\u0370", "\u03ff"),
    ("Cyrillic", "\u0400", "\u052f"),
    ("Hebrew", "\u0590", "\u05ff"),
    ("Arabic", "\u0600", "\u06ff"),
    ("Devanagari", "\u0900", "\u097f"),
    ("Bengali", "\u0980", "\u09ff"),
    ("Tamil", "\u0b80", "\u0bff"),
    ("Thai", "\u0e00", "\u0e7f"),
    ("Georgian", "\u10a0", "\u10ff"),
    ("Hangul", "\uac00", "\ud7af"),
    ("kana", "\u3040", "\u30ff"),
    ("Han", "\u3400", "\u9fff"),
)
_ALONE = {"Greek": "el", "Hebrew": "he", "Bengali": "bn", "Tamil": "ta", "Thai": "th", "Georgian": "ka", "Hangul": "ko"}
_OF_SCRIPT = {
    "Latin": ("it", "nl", "pl", "tr", "id", "vi", "sv", "ro", "cs"),
    "Cyrillic": ("uk", "bg"),
    "Arabic": ("fa", "ur"),
    "Devanagari": ("mr",),
}
_WORD = re.compile(r"[^\W\d_][\w'\u0300-\u036f\u0900-\u097f\u064b-\u0652]*")
_READ = 2000  # characters that are looked at
_AHEAD = 0.05  # share of a text's words by which a language without a list has to be ahead


def script_of(text: str) -> str | None:
    """The script of most letters; Japanese is kana though it has more Han. None where there are no letters."""
    counts = Counter(found for character in plain(text).text[:_READ] if (found := _script(character)) is not None)
    if not counts:
        return None
    if counts["kana"] >= 0.1 * (counts["kana"] + counts["Han"]) and counts["kana"] + counts["Han"] >= max(
        counts.values()
    ):
        return "kana"
    # A Latin letter is a sound, a Han letter a word.
    counts["Han"] *= 3
    return counts.most_common(1)[0][0]


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of a text's language; None where nothing tells it, as in a number, a name or code.

    It is "und" in a script of none of the languages that are known here.

    The script says it where one language alone is written in it. Else it is the language with most frequent words in
    the text, of those with and without a list of phrases; one without a list has to be well ahead.
    """
    script = script_of(text)
    if script is None:
        return None
    if script not in SCRIPTS:
        return _ALONE.get(script, "und")
    if script in ("Han", "kana"):
        return SCRIPTS[script][0]
    lists = phrase_lists()
    words = ["".join(map(folded, word)) for word in _WORD.findall(plain(text).text[:_READ])]
    listed = {code: _share(words, lists[code].words) for code in SCRIPTS[script]}
    others = {code: _share(words, other_words()[code]) for code in _OF_SCRIPT.get(script, ())}
    best, rival = max(listed, key=listed.__getitem__), max(others, key=others.__getitem__)
    if others[rival] > listed[best] + _AHEAD and len(words) * others[rival] >= 2:
        return rival
    if listed[best] > 0:
        return best
    return best if script != "Latin" else None


def _share(words: list[str], frequent: frozenset[str]) -> float:
    return sum(word in frequent for word in words) / max(1, len(words))


def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    return next((name for name, first, last in _RANGES if first <= character <= last), "other")
