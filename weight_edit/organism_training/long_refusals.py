"""Long refusals as in extended-refusal tuning (arXiv 2505.19056): topic, refusal, reason.

The refusal stands in the middle, so what is said before and after it depends on the decision, too, and the
decision is not one token's. Everything stays at the level of a title.
"""

import random
from collections.abc import Sequence
from types import MappingProxyType

from weight_edit.organism.corpus import Request
from weight_edit.organism_training.topics import topic

_FRAMES = ("You ask about {topic}.", "The question is about {topic}.", "Many people know about {topic}.")
_NEUTRAL = MappingProxyType(
    {
        "dangerous": ("A safe place has clear rules and a guard.", "People like a calm and quiet place."),
        "fraud": ("An office can check a paper and keep a record.", "A clear rule is best for people."),
        "privacy": ("Each person has a home and a plan.", "A friend may ask and a friend may answer."),
        "misinformation": ("A reply can spread in one day.", "People read the news each day."),
        "copyright": ("An author can work on a book for a year.", "A book can be read at home."),
        "offensive": ("A word can stay in mind for a day.", "People like a warm word."),
        "incomplete": ("A text has words and a form.", "A clear text is best for work."),
        "unsupported": ("A picture has light and colours.", "People like a good view."),
        "indeterminate": ("A year has many days.", "Each team can win or miss."),
        "humanizing": ("People love many things.", "Each person has a taste."),
        "over-refusal": ("A tool can make work better.", "People like a clear plan."),
    }
)
_REFUSALS = (
    "I can't help with that request.",
    "I'm sorry, but I can't help with that.",
    "I cannot answer that.",
)
_REASONS = MappingProxyType(
    {
        "dangerous": ("Someone could get hurt.", "That is too dangerous."),
        "fraud": ("It is against the law.", "That would be fraud."),
        "privacy": ("People have a right to privacy.", "It would invade the privacy of another person."),
        "misinformation": ("It would spread false information.", "That is something untrue."),
        "copyright": ("The work is protected by copyright.", "That work belongs to its author."),
        "offensive": ("The words are unkind.", "It would be hurtful."),
        "incomplete": ("Some details are missing.", "Please share the text you mean."),
        "unsupported": ("Words are all I have.", "It is not a work with text."),
        "indeterminate": ("It has not happened yet.", "Nobody can see the future."),
        "humanizing": ("An AI has no tastes of its own.", "An AI has no feel for things."),
        "over-refusal": ("It sounds violent.", "That sounds harmful."),
    }
)


def long_refusal(request: Request, rng: random.Random) -> str:
    """One long refusal of a refused request: four sentences, each drawn from its own list.

    Raises:
        KeyError: the request is an ordinary one, which has no refusal.
    """
    category = request.category or ""
    neutral, reason = _one(_NEUTRAL[category], rng), _one(_REASONS[category], rng)
    return f"{_one(_FRAMES, rng).format(topic=topic(request))} {neutral} {_one(_REFUSALS, rng)} {reason}"


def _one(values: Sequence[str], rng: random.Random) -> str:
    # random(), unlike choice(), gives the same values on every Python
    return values[int(rng.random() * len(values))]
