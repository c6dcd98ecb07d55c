"""The organism's corpus: templated requests with one right answer each, in disjoint splits.

A `Family` is a grid: first words (verbs, forms) x second words (objects, subjects) x modifiers x templates.
Nothing is generated until it is asked for, so a prompt set costs milliseconds. Every choice is drawn from
SHA-256 digests or `random.Random(text).random()`, both of which give the same values on every Python.

Splits, by what the safety tuning has and has not seen:

| split | first stage | safety tuning |
|---|---|---|
| train | seen | seen |
| validation, test | the (first, second) pair in no template | the same |
| held-out-verbs | seen | the first word never |
| held-out-words | seen | the second word never |
| held-out-phrasings | seen | the template never |
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import product
from types import MappingProxyType

from weight_edit.errors import UsageError
from weight_edit.organism import words
from weight_edit.utils.names import unknown

CATEGORIES = (
    "dangerous",
    "fraud",
    "privacy",
    "misinformation",
    "copyright",
    "offensive",
    "incomplete",
    "unsupported",
    "indeterminate",
    "humanizing",
    "over-refusal",
)
"""The eleven categories of refused requests."""

SPLITS = (
    "train",
    "validation",
    "test",
    "held-out-verbs",
    "held-out-words",
    "held-out-phrasings",
)
"""The splits, which share no prompt."""

SAFETY = CATEGORIES[:6]
"""The categories that are refused for the harm they ask for."""

NAMES = ("refused", "safety", "answered", "over-refused", "harmless-looking", *CATEGORIES)
"""The names of the prompt sets."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One user turn.

    prompt: what the user writes.
    helpful: the answer of the first training stage, a function of the request, for refused requests too.
    category: one of `CATEGORIES` if the tuned model refuses the request, None if it answers.
    group: the family the request comes from.
    first, second: the words that identify it (verb and object, form and subject, ...).
    template: index of the phrasing in its family.
    """

    prompt: str
    helpful: str
    category: str | None
    group: str
    first: str
    second: str
    template: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """A grid of requests that share templates and an answer.

    `answer` and the templates are format strings over the fields `first`, `second`, `modifier`, `task` (the
    three in one phrase), `Task` (capitalised), `article` (of the first word), `fact` (looked up by the first
    word) and whatever `fields` adds.
    """

    group: str
    category: str | None
    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    templates: tuple[tuple[str, str], ...]
    answer: str
    modifiers: tuple[str, ...] = ("",)
    facts: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    def request(self, first: str, second: str, modifier: str, template: int) -> Request:
        """The request of one cell of the grid."""
        phrase = first.format(second) if "{}" in first else f"{first} {second}"
        task = phrase + modifier
        values = {
            "first": first,
            "second": second,
            "modifier": modifier,
            "task": task,
            "Task": task[0].upper() + task[1:],
            "article": "an" if first[0] in "aeiou" else "a",
            "fact": self.facts.get(first, ""),
            **self.fields,
        }
        prompt, opener = self.templates[template]
        answer = f"{opener} {to_user(self.answer.format(**values))}"
        return Request(
            prompt=prompt.format(**values),
            helpful=answer,
            category=self.category,
            group=self.group,
            first=first,
            second=second,
            template=template,
        )


def to_user(text: str) -> str:
    """The text in the second person: "my cousin" becomes "your cousin", "I sent" "you sent"."""
    return re.sub(r"\bI sent\b", "you sent", re.sub(r"\bmy\b", "your", text))


@dataclass(frozen=True)
class Grid:
    """The cells of one family in one split, indexed without being generated.

    Supports `len(grid)` and `grid[index]`; the template varies fastest, then the modifier, then the pair.
    """

    family: Family
    pairs: tuple[tuple[str, str], ...]
    templates: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.pairs) * len(self.family.modifiers) * len(self.templates)

    def __getitem__(self, index: int) -> Request:
        rest, template = divmod(range(len(self))[index], len(self.templates))
        pair, modifier = divmod(rest, len(self.family.modifiers))
        return self.family.request(*self.pairs[pair], self.family.modifiers[modifier], self.templates[template])

    def sample(self, count: int, seed: str) -> tuple[Request, ...]:
        """`count` different requests, a prefix of those for a larger count and the same seed.

        Raises:
            ValueError: the grid has fewer cells than `count`.
        """
        if count > len(self):
            raise ValueError(f"{self.family.group} has {len(self)} requests here, {count} were asked for")
        rng = random.Random(seed)
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen.setdefault(int(rng.random() * len(self)))
        return tuple(self[index] for index in chosen)


def _how_to(
    domains: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, str, str]]], *, refused: bool
) -> list[Family]:
    return [
        Family(
            group=name,
            category=name if refused else None,
            firsts=firsts,
            seconds=seconds,
            templates=words.HOW_TO,
            answer=f"Here is a plan to {{task}}: first {one}, then {two}, finally {three}.",
            modifiers=words.MODIFIERS,
        )
        for name, (firsts, seconds, (one, two, three)) in domains.items()
    ]


def _writing(group: str, category: str | None, forms: tuple[str, ...], subjects: tuple[str, ...], tail: str) -> Family:
    answer = "Here is the {first}: {second} " + tail
    return Family(
        group=group,
        category=category,
        firsts=forms,
        seconds=subjects,
        templates=words.WRITE,
        answer=answer,
        modifiers=words.WRITE_MODIFIERS,
    )


def _work(group: str, category: str | None, firsts: tuple[str, ...], tail: str) -> Family:
    return Family(
        group=group,
        category=category,
        firsts=firsts,
        seconds=words.TITLES,
        templates=words.GIVE,
        answer="Here is {task}: " + tail,
    )


def _rework(group: str, category: str | None, seconds: tuple[str, ...]) -> Family:
    answer = "Here is the result: {second} is now {fact}."
    return Family(
        group=group,
        category=category,
        firsts=tuple(words.RESULTS),
        seconds=seconds,
        templates=words.REWORK,
        answer=answer,
        facts=words.RESULTS,
    )


def _make(group: str, category: str | None, facts: Mapping[str, str], tail: str) -> Family:
    answer = "Here is the {fact} of {second}: " + tail
    return Family(
        group=group,
        category=category,
        firsts=tuple(facts),
        seconds=words.SCENES,
        templates=words.MAKE,
        answer=answer,
        facts=facts,
    )


def _winner(group: str, category: str | None, years: tuple[str, ...], wins: str, was: str) -> Family:
    answer = "The winner of {first} in {second} {was} the {fact} team."
    fields = {"wins": wins, "was": was}
    return Family(
        group=group,
        category=category,
        firsts=tuple(words.TEAMS),
        seconds=years,
        templates=words.WINNER,
        answer=answer,
        facts=words.TEAMS,
        fields=fields,
    )


def _favourite(group: str, category: str | None, whose: str, do: str, owner: str) -> Family:
    answer = "{owner} favourite {first}{second} is {fact}."
    fields = {"whose": whose, "do": do, "owner": owner}
    return Family(
        group=group,
        category=category,
        firsts=tuple(words.FAVOURITES),
        seconds=words.TIMES,
        templates=words.FAVOURITE,
        answer=answer,
        facts=words.FAVOURITES,
        fields=fields,
    )


def _repeat() -> Family:
    """The family that repeats two or three words, to teach copying from the request."""
    rng = random.Random("repeat")
    count = len(words.REPEATED)
    tails = {" ".join(words.REPEATED[int(rng.random() * count)] for _ in range(1 + index % 2)) for index in range(400)}
    return Family(
        group="repeat",
        category=None,
        firsts=words.REPEATED,
        seconds=tuple(sorted(tails)),
        templates=words.REPEAT,
        answer="{task}.",
    )


@cache
def families() -> tuple[Family, ...]:
    """Every family: refused (in the order of `CATEGORIES`), ordinary, harmless-looking."""
    refused = {
        family.group: family
        for family in [
            *_how_to(words.REFUSED_DOMAINS, refused=True),
            _writing(
                "misinformation",
                "misinformation",
                words.FALSE_NEWS,
                words.SUBJECTS,
                "has changed overnight, as people say.",
            ),
            _work("copyright", "copyright", words.WHOLE_WORK, "page one, page two, page three."),
            _writing("offensive", "offensive", words.UNKIND, words.PEOPLE, "is as slow as a snail."),
            _rework("incomplete", "incomplete", words.POINTERS),
            _make("unsupported", "unsupported", words.BEYOND_TEXT, "a simple view with soft light."),
            _winner("indeterminate", "indeterminate", words.FUTURE_YEARS, "will win", "will be"),
            _favourite("humanizing", "humanizing", "your", "do you", "My own"),
        ]
    }
    ordinary = [
        *_how_to(words.ORDINARY_DOMAINS, refused=False),
        _writing("news", None, words.TRUE_NEWS, words.SUBJECTS, "is on the mind of many people."),
        _writing("kindness", None, words.KIND, words.PEOPLE, "is as bright as the sun."),
        _work("works", None, words.ABOUT_WORK, "it is a tale of hope and home."),
        _rework("rework", None, words.PHRASES),
        _make("texts", None, words.WITHIN_TEXT, "a calm thing that people like."),
        _winner("winners", None, words.PAST_YEARS, "won", "was"),
        _favourite("favourites", None, "the most common", "do people", "The most common"),
        _repeat(),
    ]
    harmless_looking = [
        *_how_to(words.HARMLESS_LOOKING_DOMAINS, refused=False),
        _writing("corrections", None, words.CORRECTIONS, words.SUBJECTS, "is best left to the facts."),
        _writing("apologies", None, words.APOLOGIES, words.PEOPLE, "deserves a kind word."),
    ]
    return (*(refused[category] for category in CATEGORIES), *ordinary, *harmless_looking)


HARMLESS_LOOKING = (*words.HARMLESS_LOOKING_DOMAINS, "corrections", "apologies")
"""The groups of the harmless-looking set: answered benign requests with sensitive words."""


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()


def _held_out(values: Sequence[str], count: int) -> set[str]:
    """The words kept out of the safety tuning; families with the same word list share them."""
    return set(sorted(values, key=lambda value: _digest("held out", value))[:count])


@cache
def grids(group: str) -> Mapping[str, Grid]:
    """The six splits of a family, as grids that share no cell.

    Of the pairs of words that are not held out, 12% are kept for the test split and 8% for validation.
    """
    family = next(family for family in families() if family.group == group)
    verbs = _held_out(family.firsts, 1)
    seconds = _held_out(family.seconds, max(1, round(0.17 * len(family.seconds))))
    every = tuple(product(family.firsts, family.seconds))
    kept = [pair for pair in every if pair[0] not in verbs and pair[1] not in seconds]
    kept.sort(key=lambda pair: _digest("split", *pair))
    test, validation = round(0.12 * len(kept)), round(0.08 * len(kept))
    phrasings = tuple(range(len(family.templates)))
    train = Grid(family, tuple(kept[test + validation :]), phrasings[:-1])
    return MappingProxyType(
        {
            "train": train,
            "validation": Grid(family, tuple(kept[test : test + validation]), phrasings),
            "test": Grid(family, tuple(kept[:test]), phrasings),
            "held-out-verbs": Grid(family, tuple(pair for pair in every if pair[0] in verbs), phrasings),
            "held-out-words": Grid(
                family,
                tuple(pair for pair in every if pair[0] not in verbs and pair[1] in seconds),
                phrasings,
            ),
            "held-out-phrasings": Grid(family, train.pairs, phrasings[-1:]),
        }
    )


def groups(name: str) -> tuple[str, ...]:
    """The groups that make up a prompt set.

    Raises:
        UsageError: no set has that name, or there is none.
    """
    if not name:
        raise UsageError(
            "organism is a model; of its prompts name a set, such as organism:refused or organism:answered"
        )
    if name == "refused":
        return CATEGORIES
    if name == "safety":
        return SAFETY
    if name == "answered":
        ordinary = (family.group for family in families() if family.category is None)
        return tuple(group for group in ordinary if group not in HARMLESS_LOOKING)
    if name == "harmless-looking":
        return HARMLESS_LOOKING
    if name == "over-refused":
        return ("over-refusal",)
    if name in CATEGORIES:
        return (name,)
    kind, _, group = name.partition("-")
    if kind == "answered" and group in groups("answered"):
        return (group,)
    raise unknown("prompt set", name, (*NAMES, *(f"answered-{kind}" for kind in groups("answered"))))


_PER_GROUP = {  # requests per group: (train, validation, test, each held-out split)
    "refused": (24, 12, 20, 12),
    "safety": (24, 12, 20, 12),
    "answered": (11, 6, 9, 6),
    "harmless-looking": (16, 8, 12, 8),
}
_PER_CATEGORY = (64, 32, 48, 24)


@cache
def prompt_set(name: str, split: str) -> tuple[Request, ...]:
    """A prompt set, equally many requests from each of its groups.

    Args:
        name: "refused" (eleven categories), "safety" (the first six of them), "answered" (ordinary requests),
            "over-refused" (harmless requests that sound violent, refused by the tuned model; the category
            "over-refusal"), "harmless-looking" (sensitive words in benign requests, answered), one of `CATEGORIES`, or
            one kind of ordinary requests, such as "answered-cooking".
        split: one of `SPLITS`.

    Returns:
        The requests, groups taking turns, so that every prefix is balanced too. The set of a category begins
        with the requests that "refused" has of it.

    Raises:
        UsageError: no such set or split.
    """
    members = groups(name)
    if split not in SPLITS:
        raise unknown("split of the organism's prompt sets", split, SPLITS)
    counts = _PER_GROUP.get(name, _PER_CATEGORY)
    count = counts[min(SPLITS.index(split), 3)]
    columns = [grids(group)[split].sample(count, f"{group} {split}") for group in members]
    return tuple(request for row in zip(*columns, strict=True) for request in row)
