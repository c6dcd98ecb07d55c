"""Text in plain form, for comparing wordings whatever their quotes, emphasis, entities and lookalike letters."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

_QUOTES = str.maketrans({**dict.fromkeys("‘’‛ʼʹ′`´＇", "'"), **dict.fromkeys("“”„‟«»″〝〞", '"')})
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")
_EMPHASIS = frozenset("*_")

# Letters of other alphabets that look like Latin ones (Unicode Technical Standard 39, confusables), lower case.
_LIKE_LATIN = dict(zip("аеорсухіјѕһԁԛԝӏοαινρυχκτ", "aeopcyxijshdqwloaivpuxkt", strict=True))
_LIKE_LATIN |= dict(zip("АВЕКМНОРСТХУІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEKMHOPCTXYIJSABEZHIKMNOPTYX", strict=True))
_LIKE_CYRILLIC = dict(zip("aeopcyxijsABEKMHOPCTXYIJS", "аеорсухіјѕАВЕКМНОРСТХУІЈЅ", strict=True))
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class PlainText:
    """A text in another form, with the place in the original of each of its characters.

    Attributes:
        text: the form.
        places: for each character of `text`, the index in the original of what it stands for.
    """

    text: str
    places: tuple[int, ...]

    def mapped(self, change: Callable[[str], str]) -> "PlainText":
        """The text with each character replaced by any number of others, which keep its place."""
        return _joined((changed, place) for each, place in self for changed in change(each))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return zip(self.text, self.places, strict=True)


@lru_cache(maxsize=16)
def plain(text: str) -> PlainText:
    """The text with plain quotes, no emphasis marks, casefolded, with single spaces and the places of its characters.

    Entities are what they stand for, compatibility forms (full-width letters, ligatures) plain ones, letters that
    stand for those of another alphabet that alphabet's, and characters without a width are left out.
    """
    # Quotes first and last: compatibility forms of the acute accent and the prime are made of other characters.
    given = _joined(_without_entities(text))
    if given.text.isascii():
        return _spaced(PlainText(given.text.translate(_QUOTES).lower(), given.places))
    given = PlainText(_own_letters(given.text), given.places)
    composed = _joined(_composed(given.mapped(_quotes)))
    folded = _joined(_composed(composed.mapped(_folded)))
    return _spaced(folded)


def normalise(text: str) -> str:
    """The text in plain form, see `plain`."""
    return plain(text).text


def _joined(pairs: Iterable[tuple[str, int]]) -> PlainText:
    found = list(pairs)
    return PlainText("".join(each for each, _ in found), tuple(place for _, place in found))


def _without_entities(text: str) -> Iterator[tuple[str, int]]:
    at = 0
    for match in _ENTITY.finditer(text):
        yield from zip(text[at : match.start()], range(at, match.start()), strict=True)
        for character in html.unescape(match[0]):
            yield character, match.start()
        at = match.end()
    yield from zip(text[at:], range(at, len(text)), strict=True)


def _composed(text: PlainText) -> Iterator[tuple[str, int]]:
    """The compatibility form, letter by letter with its marks."""
    cluster, start = "", 0
    for character, place in text:
        if cluster and not unicodedata.combining(character):
            yield from ((each, start) for each in unicodedata.normalize("NFKC", cluster))
            cluster = ""
        if not cluster:
            start = place
        cluster += character
    yield from ((each, start) for each in unicodedata.normalize("NFKC", cluster))


def _quotes(character: str) -> str:
    return character.translate(_QUOTES)


def _folded(character: str) -> str:
    return character.translate(_QUOTES).casefold()


def _spaced(text: PlainText) -> PlainText:
    """The text without what is not seen, without white space at its ends, and with single spaces within."""
    pairs: list[tuple[str, int]] = []
    for character, place in text:
        # Of format characters (no width, soft hyphens, directions) nothing is seen.
        if character in _EMPHASIS or unicodedata.category(character) == "Cf":
            continue
        if not character.isspace():
            pairs.append((character, place))
        elif pairs and pairs[-1][0] != " ":
            pairs.append((" ", place))
    if pairs and pairs[-1][0] == " ":
        pairs.pop()
    return _joined(pairs)


def _own_letters(text: str) -> str:
    """The text with lookalike letters replaced in words that mix alphabets, or that consist of them in other text.

    It is as long as before.
    """
    letters = [character for character in text if character.isalpha()]
    latin = sum(_is_latin(character) for character in letters)
    cyrillic = sum("\u0400" <= character <= "\u052f" for character in letters)
    greek = sum("\u0370" <= character <= "\u03ff" for character in letters)
    if not latin or not (cyrillic or greek):
        return text
    if latin >= max(cyrillic, greek):
        return _WORD.sub(lambda match: _replaced(match[0], _LIKE_LATIN), text)
    return _WORD.sub(lambda match: _replaced(match[0], _LIKE_CYRILLIC), text) if cyrillic > greek else text


def _replaced(word: str, like: dict[str, str]) -> str:
    # A word of another alphabet, with letters that nothing here looks like, is a foreign word.
    foreign = like is _LIKE_LATIN
    others = [letter for letter in word if _is_latin(letter) != foreign]
    if any(letter not in like for letter in others):
        return word
    return "".join(like.get(letter, letter) for letter in word)


def _is_latin(character: str) -> bool:
    return character < "\u0250" or "\u1e00" <= character <= "\u1eff" or "\uff21" <= character <= "\uff5a"
