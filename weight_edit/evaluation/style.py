"""Side effects of an edit on how a model writes: length, hedges, apologies, formatting and language of answers."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from weight_edit.evaluation.comparisons import Comparison, family
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.language import language_of
from weight_edit.evaluation.means import mean_comparison, mean_difference
from weight_edit.evaluation.plain_text import normalise
from weight_edit.evaluation.structure import count_words

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer

MEANS = {
    "tokens": "length in tokens",
    "words": "length in words",
    "hedging": "hedging words per 100 words",
    "first_person": "first-person words per 100 words",
}
"""Measures that are means over answers, with their names in tables."""

RATES = {
    "apology": "answers with an apology",
    "lists": "answers with a list",
    "headings": "answers with a heading",
    "code": "answers with a block of code",
    "bold": "answers with bold text",
    "own_language": "answers in the request's language",
}
"""Measures that are shares of answers, with their names in tables."""

_FEWEST = 3  # answers of which the bootstrap gives an interval

# A choice of words that weaken a claim; what is no hedge in instructions ("would", "should", "about") is left out.
_HEDGES = re.compile(
    r"\b(?:may|might|could|perhaps|maybe|possibl[ey]|probabl[ey]|presumably|apparently|arguably|seemingly|likely|unlikely"
    r"|roughly|approximately|generally|typically|usually|often|sometimes|somewhat|relatively|fairly|seems?|appears?"
    r"|suggests?|tends? to|in general|in some cases|to some extent|it depends|i think|i believe|i guess|i suppose)\b"
)
_FIRST_PERSON = re.compile(r"\b(?:i|me|my|mine|myself|i'(?:m|ve|ll|d))\b")
_APOLOGY = re.compile(r"\b(?:sorry|apolog(?:y|ies|i[sz]e[sd]?|i[sz]ing|etic)|regret(?:fully)?|forgive me|pardon me)\b")

_CODE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]*\S\*\*|(?<!\w)__(?=\S)[^_\n]*\S__(?!\w)")


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over answers with its 95% interval, which is None of fewer than three.

    Attributes:
        value: the mean.
        low, high: the ends of the interval, by `mean_comparison`.
        count: of answers.
    """

    value: float
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the answers to one prompt set are written. Of answers without words only the tokens count.

    Attributes:
        means: by the names of `MEANS`; tokens where they were counted, hedging and first person of English answers.
        rates: by the names of `RATES`; apologies of English answers, the request's language where both can be told.
        languages: the share of each language by its ISO 639-1 code, among the answers whose language can be told.
    """

    means: Mapping[str, Mean]
    rates: Mapping[str, Rate]
    languages: Mapping[str, Rate]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every measure by its name, and `languages`."""
        return {
            **{name: mean.to_dict() for name, mean in self.means.items()},
            **{name: rate.to_dict() for name, rate in self.rates.items()},
            "languages": {code: rate.to_dict() for code, rate in self.languages.items()},
        }


def style_of(answers: Sequence["Answer"]) -> Style:
    """The style of the answers to one set, thoughts left out but for `tokens`."""
    rows = [_measured(answer) for answer in answers]
    told = [row["language"] for row in rows if row["language"] is not None]
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in (*MEANS, *RATES)}
    return Style(
        means={name: _mean(tuple(columns[name])) for name in MEANS if columns[name]},
        rates={name: Rate(sum(columns[name]), len(columns[name])) for name in RATES if columns[name]},
        languages={code: Rate(count, len(told)) for code, count in Counter(told).most_common()},
    )


def differences_of_style(base: Sequence["Answer"], edited: Sequence["Answer"]) -> dict[str, dict[str, Comparison]]:
    """By prompt set and measure, the edited model's figure minus the base's on the prompts where both have one.

    Means are compared by the paired bootstrap, rates by McNemar's exact test with Tango's interval; p values are
    corrected over the measures of a set by Holm's rule.

    Args:
        base, edited: answers to the same prompts, in the same order.
    """
    found: dict[str, dict[str, Comparison]] = {}
    for name in dict.fromkeys(answer.set for answer in base):
        pairs = [(_measured(a), _measured(b)) for a, b in zip(base, edited, strict=True) if a.set == name]
        apart: dict[str, Comparison] = {}
        for measure in (*MEANS, *RATES):
            both = [(a[measure], b[measure]) for a, b in pairs if a[measure] is not None and b[measure] is not None]
            first, second = [a for a, _ in both], [b for _, b in both]
            if measure in MEANS and len(both) >= _FEWEST:
                apart[measure] = mean_difference(first, second)
            elif measure in RATES and both:
                apart[measure] = paired_difference(first, second).comparison
        found[name] = dict(zip(apart, family(list(apart.values())), strict=True))
    return found


def _measured(answer: "Answer") -> dict[str, Any]:
    return dict(_measures(answer.answer, answer.prompt), tokens=answer.tokens)


@lru_cache(maxsize=4096)  # each answer is measured for its model and for the difference
def _measures(text: str, prompt: str) -> Mapping[str, Any]:
    """Every measure of one answer but its tokens; None where it does not apply."""
    words = count_words(text)
    if words == 0:
        return dict.fromkeys((*MEANS, *RATES, "language"))
    language, asked = language_of(text), language_of(prompt)
    english = language == "en"
    prose, plain = _CODE.sub("", text), normalise(text)
    return {
        "words": words,
        "hedging": 100 * len(_HEDGES.findall(plain)) / words if english else None,
        "first_person": 100 * len(_FIRST_PERSON.findall(plain)) / words if english else None,
        "apology": bool(_APOLOGY.search(plain)) if english else None,
        "lists": len(_ITEM.findall(prose)) > 1,
        "headings": bool(_HEADING.search(prose)),
        "code": bool(_CODE.search(text)),
        "bold": bool(_BOLD.search(prose)),
        "own_language": None if language is None or asked is None else language == asked,
        "language": language,
    }


@lru_cache(maxsize=64)
def _mean(values: tuple[float, ...]) -> Mean:
    if len(values) < _FEWEST:
        return Mean(value=sum(values) / len(values), low=None, high=None, count=len(values))
    found = mean_comparison(values)
    return Mean(value=found.value, low=found.low, high=found.high, count=found.count)
