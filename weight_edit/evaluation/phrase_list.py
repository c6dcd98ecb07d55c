"""Lists of refusal phrases by language: read from data files, compiled, and found in a text."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pydantic import Field

from weight_edit.evaluation.plain_text import PlainText, plain
from weight_edit.utils.bounded_yaml import parse_yaml
from weight_edit.utils.settings import Section, validated

FOLDER = Path(__file__).parent / "judges" / "phrase_lists"
OTHERS = "others"
"""The file of frequent words of languages that have no list."""


class _Written(Section):
    """A list as its file has it.

    A phrase is words with single spaces (none in a language without spaces); `{name}` is one of `sets`, `~` up to three
    words or eight letters, `~~` twice as many, `\\.` the end of a sentence, and the rest a regular expression.
    """

    language: str
    spaced: bool
    words: str
    sets: dict[str, str] = Field(default_factory=dict)
    refusals: list[str]
    inabilities: list[str]
    openings: list[str]
    dismissals: list[str]
    attributions: list[str]
    preambles: list[str]
    exceptions: list[str]
    disclaimers: list[str]
    concessions: list[str]
    compliances: list[str]
    deliveries: list[str]
    salutations: list[str]
    morals: list[str]
    asks: str


@dataclass(frozen=True, kw_only=True)
class PhraseList:
    """The phrases of one language, each group as one expression over a `Skeleton`.

    Attributes:
        code: the language, ISO 639-1.
        language: its English name.
        spaced: whether it writes spaces between words.
        words: frequent words in folded letters, by which the language is told.
        refusals: decline wherever they stand.
        inabilities: decline near the beginning alone: "I can't see what".
        openings: decline as an answer's first words alone: "I'm sorry, but".
        dismissals: decline near the beginning, without an "I" that does: "it is not appropriate to discuss".
        attributions: put such words into others' mouths or under a condition: "some argue that it", "if it".
        preambles: stand before the first sentence that says something: "I'm sorry to hear", "I understand that".
        exceptions: look like the others and decline nothing: "couldn't help but".
        disclaimers: decline to stand for something that is given all the same: "cannot give medical advice".
        concessions: decline to approve of what follows: "can't endorse this, but here is".
        compliances: agree, or begin what was asked for: "sure", "first".
        deliveries: hand over what was asked for: "here is".
        salutations: begin a letter or a scene, whose words are not the model's own.
        morals: say that something is wrong, or where to find help.
        asks: words of prompts that ask whether something is wrong.
    """

    code: str
    language: str
    spaced: bool
    words: frozenset[str]
    refusals: re.Pattern[str]
    inabilities: re.Pattern[str]
    openings: re.Pattern[str]
    dismissals: re.Pattern[str]
    attributions: re.Pattern[str]
    preambles: re.Pattern[str]
    exceptions: re.Pattern[str]
    disclaimers: re.Pattern[str]
    concessions: re.Pattern[str]
    compliances: re.Pattern[str]
    deliveries: re.Pattern[str]
    salutations: re.Pattern[str]
    morals: re.Pattern[str]
    asks: re.Pattern[str]


@dataclass(frozen=True)
class Skeleton:
    """The words of a text alone: plain, without accents on Latin letters, with " . " at ends of sentences.

    Quotations and code are one " . " each, unless the text is nothing else.

    Attributes:
        text: the words, a space at both ends; without spaces where the language has none.
        places: the index in the original of each character.
    """

    text: str
    places: tuple[int, ...]


def phrase_lists() -> dict[str, PhraseList]:
    """The lists by language, English first."""
    codes = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != OTHERS)
    return {code: phrase_list(code) for code in sorted(codes, key=lambda code: code != "en")}


@cache
def phrase_list(code: str) -> PhraseList:
    """The list of one language.

    Raises:
        OSError: there is none.
    """
    path = FOLDER / f"{code}.yaml"
    written = validated(_Written, parse_yaml(path.read_text(encoding="utf-8")), path.name)

    def group(phrases: list[str]) -> re.Pattern[str]:
        return _compiled(phrases, written.sets, written.spaced)

    return PhraseList(
        code=code,
        language=written.language,
        spaced=written.spaced,
        words=_frequent(written.words),
        refusals=group(written.refusals),
        inabilities=group(written.inabilities),
        openings=group(written.openings),
        dismissals=group(written.dismissals),
        attributions=group(written.attributions),
        preambles=group(written.preambles),
        exceptions=group(written.exceptions),
        disclaimers=group(written.disclaimers),
        concessions=group(written.concessions),
        compliances=group(written.compliances),
        deliveries=group(written.deliveries),
        salutations=group(written.salutations),
        morals=group(written.morals),
        asks=re.compile(rf"(?<!\w)(?:{written.asks})(?!\w)" if written.spaced else written.asks, re.IGNORECASE),
    )


@cache
def other_words() -> Mapping[str, frozenset[str]]:
    """Frequent words of languages without a list, by ISO 639-1 code."""
    content = parse_yaml((FOLDER / f"{OTHERS}.yaml").read_text(encoding="utf-8"))
    return {code: _frequent(words) for code, words in content.items()}


def _frequent(words: str) -> frozenset[str]:
    return frozenset("".join(map(folded, word)) for word in words.casefold().split())


def _compiled(phrases: list[str], sets: Mapping[str, str], spaced: bool) -> re.Pattern[str]:
    if not phrases:
        return re.compile("(?!)")
    either = "|".join(f"(?:{_expression(phrase, sets, spaced)})" for phrase in phrases)
    return re.compile(f"(?<= )(?:{either})(?= )" if spaced else either)


def _expression(phrase: str, sets: Mapping[str, str], spaced: bool) -> str:
    for name, words in sets.items():
        phrase = phrase.replace(f"{{{name}}}", f"({words})")
    whole = "".join(letter for each in phrase for letter in folded(each))
    whole = re.sub(r"\((?!\?)", "(?:", whole)
    if not spaced:
        return re.sub(r"~+", lambda gap: f"[^.]{{0,{8 * len(gap[0])}}}?", whole)
    return re.sub(r" (~+) ", lambda gap: f" (?:[^ .]+ ){{0,{3 * len(gap[1])}}}?", whole)


_NASALS = "\u0901\u0902\u093c"  # candrabindu, anusvara, nukta
_ARABIC = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ة": "ه", "ـ": None, "ک": "ك", "ی": "ي"})
_LETTERS = str.maketrans({"ё": "е", "ॉ": "ा", "ß": "ss", "ø": "o", "ł": "l"})


def folded(character: str) -> str:
    """A letter without what writers leave out: Latin accents, Arabic vowels and kinds of alef, Hindi's dots."""
    if character < "\u0080":
        return character
    if character in _NASALS or "\u064b" <= character <= "\u0655":
        return ""
    character = character.translate(_ARABIC).translate(_LETTERS)
    apart = unicodedata.normalize("NFD", character)
    return apart[0] if len(apart) > 1 and apart[0].isascii() else character


_CLOSED = re.compile(r"'''.{1,4000}?'''|\"[^\"]{2,600}\"|[「『《][^」』》]{2,300}[」』》]")
_ENDS = frozenset(".!?。！？।؟…:;：；؛")
_INSIDE = frozenset("'-")


@lru_cache(maxsize=16)
def skeleton(text: str, spaced: bool, *, quotes: bool = False) -> Skeleton:
    """The words of a text, see `Skeleton`.

    Args:
        quotes: leave out quotations also where the text is nothing else.
    """
    given = plain(text)
    return _skeleton(given, _quoted(given.text, quotes), text, spaced)


def _skeleton(given: PlainText, quoted: list[bool], original: str, spaced: bool) -> Skeleton:
    letters: list[str] = [" "] if spaced else []
    places: list[int] = [0] * len(letters)

    def put(text: str, place: int) -> None:
        for each in text:
            if each == " " and (not spaced or letters[-1] == " "):
                continue
            letters.append(each)
            places.append(place)

    def end(place: int) -> None:
        put(" . " if spaced else ".", place)

    size = len(given.text)
    for index, (character, place) in enumerate(given):
        following = given.text[index + 1] if index + 1 < size else " "
        if quoted[index]:
            if index == 0 or not quoted[index - 1]:
                end(place)
        elif character == " ":
            stop = given.places[index + 1] if index + 1 < size else len(original)
            # A single new line may be a wrapped one.
            if original[place:stop].count("\n") > 1:
                end(place)
            else:
                put(" ", place)
        elif character in _ENDS:
            # Within a number or an abbreviation it ends nothing.
            if following.isalnum() and spaced:
                put(" ", place)
            else:
                end(place)
        elif character in _INSIDE and following.isalnum() and letters and letters[-1].isalnum():
            put(character, place)
        elif unicodedata.category(character)[0] in "LNM":
            put(folded(character), place)
        else:
            put(" ", place)
    end(len(original))
    return Skeleton("".join(letters), tuple(places))


def _quoted(text: str, always: bool) -> list[bool]:
    """For each character of a plain text, whether it stands in a quotation or in code."""
    inside = [False] * len(text)
    for match in _CLOSED.finditer(text):
        inside[match.start() : match.end()] = [True] * (match.end() - match.start())
    words = [index for index, character in enumerate(text) if character.isalnum()]
    outside = sum(not inside[index] for index in words)
    # A text in quotes from one end to the other is the answer itself.
    return inside if always or outside > 0.2 * len(words) else [False] * len(text)


def spans(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where a pattern is found, with overlaps of what begins at different places."""
    at = 0
    while match := pattern.search(text, at):
        yield match.span()
        at = match.start() + 1
